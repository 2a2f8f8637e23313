"""What `parkway knowledge` says to what cannot be, before it asks anybody."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from parkway.launch import running
from parkway.store.home import Home
from tests.cli.conftest import Command


@pytest.fixture
def up(home: Home) -> None:
    """A Parkway that says it runs, and answers nobody."""
    home.first_key_file.write_text("pk-1")
    running.write(home, running.Running(url="http://127.0.0.1:1", pid=os.getpid()))


@pytest.mark.parametrize(
    "words", [("list",), ("status",), ("search", "docs", "x"), ("add", "docs", "."), ("rm", "docs"), ("status", "docs")]
)
def test_without_a_parkway_up_that_is_what_is_said(parkway: Command, words: tuple[str, ...]) -> None:
    done = parkway("knowledge", *words)
    assert done.code == 3
    assert "start it with: parkway up" in done.err


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://[::1", "is not an address"),
        ("http://host:99999", "is not an address"),
        ("ftp://host", "is not an address"),
        ("http://127.0.0.1:1", "no answer from http://127.0.0.1:1"),
    ],
)
def test_an_address_that_cannot_be(parkway: Command, monkeypatch: pytest.MonkeyPatch, url: str, words: str) -> None:
    monkeypatch.setenv("PARKWAY_API_KEY", "pk-1")
    assert words in parkway("knowledge", "list", "--url", url).err


def test_a_key_that_cannot_be(parkway: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("pk-1\npk-2", "pk-€"):
        monkeypatch.setenv("PARKWAY_API_KEY", key)
        done = parkway("knowledge", "list", "--url", "http://127.0.0.1:1")
        assert (done.code, done.err.count("\n")) == (2, 1)
        assert "read from $PARKWAY_API_KEY" in done.err


@pytest.mark.usefixtures("up")
def test_what_is_no_text(parkway: Command, tmp_path: Path) -> None:
    done = parkway("knowledge", "search", "docs", "\udcff")
    assert (done.code, done.err) == (2, "error: '\\udcff' is not UTF-8\n")
    (tmp_path / "\udcff.txt").write_text("x")
    done = parkway("knowledge", "add", "docs", str(tmp_path / "\udcff.txt"))
    assert done.code == 2
    assert "\\udcff.txt' is not UTF-8" in done.err
    assert parkway("knowledge", "rm", "docs", "\udcff", "--yes").err == "error: '\\udcff' is not UTF-8\n"


@pytest.mark.usefixtures("up")
def test_more_than_one_call_can_have(parkway: Command, tmp_path: Path) -> None:
    done = parkway("knowledge", "add", "docs", *[str(tmp_path)] * (2_000_000 // len(str(tmp_path))))
    assert done.code == 3
    assert "paths are too many for one call; add the folder that they are in" in done.err
    for fact, words in (("=1", "is not KEY=VALUE"), (f"{'k' * 200}=1", "length <= 128")):
        done = parkway("knowledge", "add", "docs", ".", "--metadata", fact)
        assert done.code == 2
        assert words in done.err
