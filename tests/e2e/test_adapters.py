"""Adapters in the configuration, as real processes: each is a model like every other, also where it has to be woken."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import openai
import pytest

from parkway.launch.control import overview
from parkway.store.home import Home
from tests.engine.test_adapters import write_adapter
from tests.engine.tiny import CONFIGS, random_tensors, write_directory
from tests.launch import stage
from tests.launch.stage import wait_until
from tests.running import Parkway

TINY = CONFIGS["qwen3-grouped-yarn"]
SCALE = 2.0  # lora_alpha / r of the adapters


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, two adapters for it, and the model with the first of them merged into its weights."""
    folder = tmp_path_factory.mktemp("models")
    tensors = random_tensors(TINY)
    write_directory(folder / "tiny", TINY, tensors=tensors)
    added = write_adapter(folder / "legal", tensors, 1)
    write_adapter(folder / "style", tensors, 2)
    merged = {name: weight + SCALE * added[name] if name in added else weight for name, weight in tensors.items()}
    write_directory(folder / "merged", TINY, tensors=merged)
    return folder


@pytest.fixture(scope="module")
def parkway(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parkway]:
    with Parkway(tmp_path_factory.mktemp("home"), _settings(folder)) as running:
        yield running


@pytest.fixture
def client(parkway: Parkway) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{parkway.url}/v1", api_key=parkway.key, max_retries=0, timeout=90) as client:
        yield client


def _settings(folder: Path) -> dict[str, object]:
    legal, style = str(folder / "legal"), str(folder / "style")
    path = str(folder / "tiny")
    models = {
        "tiny": {"path": path, "adapters": {"legal": legal, "style": style}},
        "later": {"path": path, "load": "on_demand", "adapters": {"legal": legal}},
        "merged": {"path": str(folder / "merged"), "load": "on_demand"},
    }
    return {"models": models, "engine": {"dtype": "float32", "max_sequences": 4, "max_answer_tokens": 16}}


def _answer(client: openai.OpenAI, model: str) -> str:
    answer = client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": "hello"}], temperature=0, max_tokens=16
    )
    assert answer.model == model
    return answer.choices[0].message.content or ""


def test_adapters_are_listed_like_every_other_model(client: openai.OpenAI, parkway: Parkway) -> None:
    expected = ["later", "later:legal", "merged", "tiny", "tiny:legal", "tiny:style"]
    assert [model.id for model in client.models.list().data] == expected
    assert client.models.retrieve("tiny:legal").id == "tiny:legal"
    listed = json.loads(parkway.command("models", "--json").stdout)
    urls = {endpoint["endpoint_id"]: endpoint["url"] for endpoint in listed}
    assert urls["tiny#0"] == urls["tiny:legal#0"] == urls["tiny:style#0"]


def test_each_adapter_answers_as_the_model_with_its_changes_would(client: openai.OpenAI) -> None:
    answers = {model: _answer(client, model) for model in ("tiny", "tiny:legal", "tiny:style", "merged")}
    assert answers["tiny:legal"] == answers["merged"]
    assert len(set(answers.values())) == 3


def test_who_asks_for_an_adapter_wakes_its_model(client: openai.OpenAI, parkway: Parkway) -> None:
    assert _state(parkway, "later") == "asleep"
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda name: _answer(client, name), ("later:legal", "later:legal", "later", "later")))
    assert answers[0] == answers[1] == _answer(client, "tiny:legal")
    assert answers[2] == answers[3] == _answer(client, "tiny")
    assert _state(parkway, "later") == "ready"
    assert sum(" loading later (needs " in line for line in parkway.said) == 1


def test_an_adapter_that_nobody_has_is_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match='Did you mean "tiny:legal"'):
        _answer(client, "tiny:legl")


def test_an_engine_that_died_comes_back_with_its_adapters(client: openai.OpenAI, parkway: Parkway) -> None:
    before = _answer(client, "tiny:style")
    os.kill(parkway.process("engine", "tiny"), signal.SIGKILL)
    wait_until(lambda: _answers(client, "tiny:style"), "an answer after the engine was killed")
    assert _answer(client, "tiny:style") == before


def test_parkway_run_talks_to_an_adapter(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "parkway.yaml").write_text(json.dumps(_settings(folder)))
    done = stage.parkway(tmp_path / "home", "run", "later:legal", "hello")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def _answers(client: openai.OpenAI, model: str) -> bool:
    try:
        return bool(_answer(client, model))
    except openai.InternalServerError:
        return False


def _state(parkway: Parkway, name: str) -> str:
    found = overview(Home(parkway.home))
    assert found is not None
    return next(model.state for model in found.models if model.name == name)
