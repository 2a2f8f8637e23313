"""`parkway guardrails test`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from parkway.cli.main import run

CONFIG = """\
guardrails:
  - {name: personal data, check: personal_data, action: redact}
  - {name: no secrets, check: secrets, action: block}
  - {name: talk, check: topics, options: {topics: {a: [some phrase]}}}
"""


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "parkway.yaml"
    path.write_text(CONFIG, encoding="utf-8")
    return str(path)


def test_shows_what_is_found_and_what_is_left(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["guardrails", "test", "Mail a@b.example", "--config", config]) == 0
    out = capsys.readouterr().out
    assert "email" in out
    assert "not asked" in out
    assert out.endswith("\nMail [EMAIL]\n")


def test_json_says_what_blocks(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    secret = "ghp_" + "a1B2" * 9
    assert run(["guardrails", "test", secret, "--on", "output", "--json", "--config", config]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["blocked_by"], told["kind"], told["text"]) == ("no secrets", "github_token", None)
    assert {"guardrail": "no secrets", "check": "secrets", "action": "block", "kind": "github_token", "score": 1.0,
            "count": 1} in told["findings"]  # fmt: skip


def test_without_guardrails_it_says_where_to_begin(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = tmp_path / "empty.yaml"
    empty.write_text("", encoding="utf-8")
    assert run(["guardrails", "test", "x", "--config", str(empty)]) == 1
    assert "docs/guardrails.md" in capsys.readouterr().err
