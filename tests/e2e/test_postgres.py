"""The whole product on PostgreSQL: the same requests, the same answers, state that survives a restart."""

from __future__ import annotations

from pathlib import Path

import openai

from tests.running import Parkway
from tests.servers import Postgres


def test_conversations_keys_and_log_on_postgres(postgres: Postgres, tiny_model: Path, tmp_path: Path) -> None:
    settings: dict[str, object] = {
        "models": {"tiny": str(tiny_model)},
        "store": {"url": postgres.create_database()},
    }
    with Parkway(tmp_path / "home", settings) as running:
        key = running.key
        with openai.OpenAI(base_url=f"{running.url}/v1", api_key=key, max_retries=0) as client:
            asked = client.chat.completions.create(
                model="tiny",
                messages=[{"role": "user", "content": "hello"}],
                max_tokens=3,
                extra_body={"conversation": "kept"},
            )
            scored = client.post("/feedback", cast_to=object, body={"request_id": asked.id, "thumb": "up"})
            assert isinstance(scored, dict)
    with Parkway(tmp_path / "home", settings) as running:
        assert running.key == key
        with openai.OpenAI(base_url=f"{running.url}/v1", api_key=key, max_retries=0) as client:
            conversation = client.get("/conversations/kept", cast_to=object)
            assert isinstance(conversation, dict)
            assert conversation["message_count"] == 2
        config = str(running.home / "parkway.yaml")
        assert '"tiny"' in running.command("stats", "--json", "--config", config).stdout
    assert not (tmp_path / "home" / "parkway.db").exists()
