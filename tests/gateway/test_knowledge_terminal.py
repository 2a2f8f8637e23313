"""`parkway knowledge` and `parkway ask` against a gateway elsewhere: what they send, print, and exit with."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from parkway.cli.ask import _Answer, sources_of
from parkway.cli.main import run
from parkway.cli.place import place_of
from parkway.launch.settings import Settings
from tests.gateway.conftest import StartGate
from tests.gateway.shelf import TOKEN, Kept, Shelf, owner


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


Command = Callable[..., Awaitable[Done]]


@pytest.fixture
def shelf() -> Shelf:
    return Shelf({"handbook": {"leave.md": Kept("Thirty days of leave\na year.", "text/markdown", ("*",))}})


@pytest.fixture
async def knowledge(
    start_gate: StartGate, shelf: Shelf, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> AsyncIterator[Command]:
    async with owner(shelf) as url:
        monkeypatch.setenv("PARKWAY_KNOWLEDGE", url)
        monkeypatch.setenv("PARKWAY_ENGINE_TOKEN", TOKEN)
        async with start_gate(Settings.model_validate({"models": {}})) as gate:
            monkeypatch.setenv("PARKWAY_API_KEY", gate.key)

            async def command(*words: str) -> Done:
                code = await asyncio.to_thread(run, ["knowledge", *words, "--url", gate.url])
                return Done(code, *capsys.readouterr())

            yield command


async def test_a_folder_is_sent_and_found(knowledge: Command, shelf: Shelf, tmp_path: Path) -> None:
    folder = tmp_path / "notes"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep/a b.txt").write_text("A kingfisher dives.")
    (folder / ".hidden").write_text("never sent")
    (folder / "out").symlink_to("/etc")
    (folder / "passwd").symlink_to("/etc/passwd")
    done = await knowledge("add", "birds", str(folder))
    assert (done.code, done.out) == (0, "birds: 1 of 1 documents indexed, 1 passages\n")
    assert list(shelf.kept["birds"]) == ["notes/deep/a b.txt"]
    facts = ("--metadata", "year=2026", "--metadata", "area=law & order", "--metadata", 'tags=["a", "1"]')
    assert (await knowledge("add", "birds", str(folder), *facts, "--metadata", "draft=false")).code == 0
    assert shelf.kept["birds"]["notes/deep/a b.txt"].metadata == {
        "year": 2026, "area": "law & order", "tags": ["a", "1"], "draft": False,
    }  # fmt: skip
    assert (await knowledge("add", "birds", str(folder), "--metadata", "year")).code == 2
    done = await knowledge("search", "birds", "kingfisher")
    assert done.code == 0
    assert "1. notes/deep/a b.txt" in done.out
    assert "A kingfisher dives." in done.out
    assert "1 hits in 1.0 ms; confidence 0.50" in done.err
    assert (await knowledge("search", "birds", "elephant")).code == 1
    done = await knowledge("rm", "birds", "notes/deep/a b.txt", "--yes")
    assert (done.code, done.out) == (0, "removed notes/deep/a b.txt\n")
    assert (await knowledge("rm", "birds", "--yes")).code == 0
    assert list(shelf.kept) == ["handbook"]


async def test_lists_are_tables_or_json(knowledge: Command, shelf: Shelf) -> None:
    assert "handbook" in (await knowledge("list")).out
    assert json.loads((await knowledge("list", "--json")).out)[0]["indexed"] == 1
    done = await knowledge("status", "handbook", "--documents")
    assert "leave.md  indexed" in done.out
    told = json.loads((await knowledge("status", "handbook", "--documents", "--json")).out)
    assert told["documents"][0]["uri"] == "leave.md"
    assert json.loads((await knowledge("search", "handbook", "leave", "--json")).out)["hits"][0]["uri"] == "leave.md"
    shelf.kept.clear()
    assert "no collections yet" in (await knowledge("list")).err


async def test_what_is_not_there_is_told(knowledge: Command) -> None:
    done = await knowledge("search", "nowhere", "x")
    assert done.code == 1
    assert 'collection "nowhere" does not exist' in done.err
    done = await knowledge("add", "UPPER", __file__)
    assert done.code == 2
    assert "begins with a letter or a digit" in done.err


async def test_questions_are_measured(knowledge: Command, tmp_path: Path) -> None:
    pytest.importorskip("parkway.retrieval.evaluation")
    gold = tmp_path / "gold.jsonl"
    gold.write_text('{"query": "leave", "relevant": ["leave.md"]}\n{"query": "elephant", "relevant": []}\n')
    done = await knowledge("eval", str(gold), "--in", "handbook", "--compare")
    assert done.code == 0, done.err
    assert "| handbook, not re-ranked |" in done.out
    assert "1.000" in done.out


def test_sources_are_told_once_each_by_number() -> None:
    answer = json.dumps({
        "choices": [{"message": {"content": "Yes [2], and again [2], and [1]."}}],
        "parkway": {"answered": True, "tier": "generated", "confidence": 0.9, "citations": [
            {"number": 2, "uri": "b.pdf", "page": 3, "quote": "x", "passage_id": "p"},
            {"number": 2, "uri": "b.pdf", "page": 3, "quote": "y"},
            {"number": 1, "uri": "a.md", "quote": "z", "headings": ["One", "Two"]},
        ]},
    })  # fmt: skip
    found = msgspec.json.decode(answer, type=_Answer)
    assert found.parkway is not None
    assert sources_of(found.parkway) == ["[1] a.md › One › Two", "[2] b.pdf, page 3"]


def test_a_place_is_file_and_line_where_the_file_is_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/a b.md").write_text("# One\n\nfirst\n\nsecond line\nof it\n")
    uri = "notes/a b.md"
    assert place_of(uri, quote="second line\nof it", headings=["One"]) == "notes/a b.md:5"
    assert place_of(uri, quote="not there", headings=["One"]) == "notes/a b.md › One"
    assert place_of(uri, page=2, quote="x", headings=[]) == "notes/a b.md, page 2"
    assert place_of("elsewhere/x.md", quote="x", headings=[]) == "elsewhere/x.md"
    assert place_of("/dev/zero", quote="x", headings=[]) == "/dev/zero", "which is not read"
    assert place_of("", title="Title", quote="x", headings=[]) == "Title"
