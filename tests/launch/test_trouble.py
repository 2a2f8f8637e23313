"""What is wrong with a child comes to the terminal once, and that it is over, too."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from parkway.core.tasks import Tasks
from parkway.launch import trouble
from parkway.launch.trouble import Telling, Troubles, of_collection, refusal


def test_each_thing_is_said_once_whoever_says_it() -> None:
    said: list[str] = []
    troubles = Troubles(said.append)
    troubles.hear("knowledge", {})
    troubles.hear("gateway 0", {"the configuration": "is wrong"})
    troubles.hear("gateway 1", {"the configuration": "is wrong"})
    troubles.hear("", {"the configuration": "is wrong"})
    troubles.hear("knowledge", {"the collection docs": "is full"})
    assert said == ["gateway 0: the configuration is wrong", "knowledge: the collection docs is full"]
    del said[:]
    troubles.hear("knowledge", {"the collection docs": "is gone"})
    troubles.hear("gateway 0", {})
    troubles.hear("", {})
    assert said == ["knowledge: the collection docs is gone"]
    troubles.hear("gateway 1", {})
    troubles.hear("knowledge", {})
    assert said[1:] == ["the configuration is right again", "the collection docs is right again"]


def test_lines_that_cannot_be_read_are_passed_over_and_the_terminal_is_safe() -> None:
    said: list[str] = []
    troubles = Troubles(said.append)
    for line in (b"", b"no json", b'["a"]', b'{"a": 1}', b'{"a": "b\\u001b[2Jc\\nd"}'):
        troubles.listen("knowledge", line)
    assert said == ["knowledge: a b [2Jc\n    d"]


def test_it_says_where_to_change_it() -> None:
    source = Path("/etc/parkway.yaml")
    assert refusal("knowledge.a: no", source).endswith(
        "stays in force: knowledge.a: no; change it in /etc/parkway.yaml"
    )
    assert refusal("/etc/parkway.yaml:2: no", source).endswith("stays in force: /etc/parkway.yaml:2: no")
    assert of_collection("no", None) == "cannot be as it is configured: no"


async def test_all_is_told_anew_when_it_changes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trouble, "_SETTLED_S", 0.0)
    monkeypatch.setattr(trouble, "_LOOK_S", 0.001)
    looks = iter([{}, {}, {"a": "b" * 2000}, {"a": "b" * 3000}, {}])
    done: list[bool] = []

    def look() -> dict[str, str]:
        try:
            return next(looks)
        except StopIteration:
            done.append(True)
            return {}

    async with Tasks("test") as tasks:
        Telling(look).start(tasks)
        while not done:  # noqa: ASYNC110 - it is looked at again and again
            await asyncio.sleep(0.01)
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["trouble {}", f'trouble {{"a":"{"b" * 1000}"}}', "trouble {}"]
