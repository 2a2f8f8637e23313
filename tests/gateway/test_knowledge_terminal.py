"""`parkway knowledge` and `parkway ask` against a gateway elsewhere: what they send, print, and exit with."""

from __future__ import annotations

import asyncio
import errno
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
        limits = {"rate_per_s": 20, "burst": 30}
        settings = {"models": {}, "grounding": {"tier": "extractive"}, "limits": limits}
        async with start_gate(Settings.model_validate(settings)) as gate:
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


async def test_a_file_that_cannot_be_read_keeps_no_other_from_being_sent(
    knowledge: Command, shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    for name in ("a.txt", "locked.txt", "\udcff.txt", "z.txt"):
        (folder / name).write_text("A text.")
    opened = Path.open

    def refusing(path: Path, *words: Any, **more: Any) -> Any:
        if path.name == "locked.txt":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return opened(path, *words, **more)

    monkeypatch.setattr(Path, "open", refusing)
    done = await knowledge("add", "texts", str(folder))
    assert done.code == 0
    assert f"{folder}/locked.txt is not taken: cannot be read: Permission denied" in done.err
    assert ".txt is not taken: its name is not UTF-8" in done.err
    assert len(shelf.kept["texts"]) == 2


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
    assert "no collections yet" in (await knowledge("status")).err


async def test_questions_that_do_not_fit_are_told_before_and_beside_what_is_measured(
    knowledge: Command, shelf: Shelf, tmp_path: Path
) -> None:
    path = tmp_path / "gold.jsonl"
    lines = ["leave.md", "leaf.md", {"document": "leave.md", "start": 34, "end": 40}]
    path.write_text("".join(json.dumps({"query": "leave", "relevant": [each]}) + "\n" for each in lines))
    done = await knowledge("eval", str(path), "--in", "handbook")
    assert done.code == 0
    missing = "1 of 3 questions name documents that handbook does not have; these count as not found"
    beyond = "1 of 3 questions have spans beyond the text of their document in handbook; these count as not found"
    assert done.err.splitlines() == [
        f"warning: {missing}", 'warning:   "leaf.md"; did you mean "leave.md"?',
        f"warning: {beyond}", 'warning:   "leave.md", 34 to 40: its text has 28 characters',
        'warning: a document is named by its id, its URI, or the end of its URI from a "/" on; they are shown by: '
        "parkway knowledge status handbook --documents",
    ]  # fmt: skip
    assert f"\n{missing}.\n\n{beyond}.\n" in done.out
    assert "| handbook | 0.333 " in done.out
    path.write_text('{"query": "leave", "relevant": ["4983"]}\n')
    del shelf.asked[:]
    done = await knowledge("eval", str(path), "--in", "handbook")
    assert (done.code, done.out, shelf.asked) == (2, "", [])
    assert done.err.startswith(
        "error: nothing that is named as relevant is in handbook, which has 1 documents:\nerror:"
    )


async def test_a_beir_folder_fits_or_not_likewise(knowledge: Command, tmp_path: Path) -> None:
    (tmp_path / "qrels").mkdir()
    (tmp_path / "queries.jsonl").write_text('{"_id": "q1", "text": "leave"}\n{"_id": "q2", "text": "a year"}\n')
    (tmp_path / "qrels/test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\tleave.md\t1\nq2\t31715818\t1\n")
    done = await knowledge("eval", str(tmp_path), "--in", "handbook")
    assert "1 of 2 questions name documents that handbook does not have" in done.out
    assert 'warning:   "31715818"' in done.err


async def test_a_command_waits_for_its_turn_within_the_limits(knowledge: Command, tmp_path: Path) -> None:
    path = tmp_path / "gold.jsonl"
    path.write_text('{"query": "leave", "relevant": ["leave.md"]}\n' * 35)
    done = await knowledge("eval", str(path), "--in", "handbook")
    assert (done.code, done.err) == (0, "")


async def test_what_is_not_there_is_told(knowledge: Command) -> None:
    done = await knowledge("search", "nowhere", "x")
    assert done.code == 1
    assert 'collection "nowhere" does not exist, or you may not search it. There are: handbook' in done.err
    assert 'Did you mean "handbook"?' in (await knowledge("status", "handbok")).err
    for words in (["search", "../up", "x"], ["status", "a\nb"], ["rm", "", "--yes"], ["status", "..", "--json"]):
        done = await knowledge(*words)
        assert done.code == 2
        assert "cannot be the name of a collection" in done.err
    done = await knowledge("add", "UPPER", __file__)
    assert done.code == 2
    assert "begins with a letter or a digit" in done.err


@pytest.fixture
def gold(tmp_path: Path) -> Path:
    path = tmp_path / "gold.jsonl"
    path.write_text(
        '{"query": "leave", "relevant": ["leave.md"], "answer": "thirty days"}\n{"query": "elephant", "relevant": []}\n'
    )
    (tmp_path / "many.jsonl").write_text(path.read_text() * 20)
    (tmp_path / "answered.jsonl").write_text('{"query": "leave", "relevant": ["leave.md"]}\n')
    return path


async def test_questions_are_measured(knowledge: Command, shelf: Shelf, gold: Path) -> None:
    shelf.kept["other"] = {"leave.md": Kept("Who goes when.", "text/markdown", ("*",))}
    done = await knowledge("eval", str(gold), "--in", "handbook", "--compare", "diversity=0.5,rerank=false",
                           "--compare", "other", "--compare")  # fmt: skip
    assert done.code == 0, done.err
    rows = {line.split(" | ")[0].removeprefix("| "): line for line in done.out.splitlines() if line.startswith("| ")}
    assert rows["handbook"].startswith("| handbook | 1.000 (1.000 to 1.000) |")
    assert "-1.000 (-1.000 to -1.000)" in rows["other"]
    assert done.err == ""
    assert "+0.000 (+0.000 to +0.000)" in rows["handbook, rerank=false"]
    assert done.out.count("| total | 1.00 | 1.00 | 1.00 |") == 4
    asked = [search for name, search, _ in shelf.asked if name == "handbook"]
    assert [(each.rerank, each.diversity) for each in asked[::2]] == [(True, None), (False, 0.5), (False, None)]
    assert "told apart (AUC): 0.500; to recommend a min_confidence takes 20 questions with an answer" in done.out
    done = await knowledge("eval", str(gold.with_name("many.jsonl")), "--in", "handbook")
    assert "told apart (AUC): 0.500; recommended: min_confidence 0.50" in done.out


async def test_answers_are_measured(knowledge: Command, gold: Path) -> None:
    done = await knowledge("eval", str(gold), "--in", "handbook", "--answers", "--model", "echo")
    assert done.code == 0, done.err
    for row in (
        "| answered: questions with an answer that get one | 1.000 |",
        "| false answers: questions without an answer that get one | 0.000 |",
        "| grounded: sentences that a passage carries | 1.000 |",
        "| exact: questions whose answer has the expected words in it | 1.000 |",
    ):
        assert row in done.out


async def test_what_cannot_be_compared_is_told(knowledge: Command, shelf: Shelf, gold: Path) -> None:
    for words, expected in (
        (["--compare", "luck=1"], "'luck' is no setting of a search"),
        (["--compare", "rerankk=1"], "there are rerank, diversity, budget_ms. Did you mean"),
        (["--compare", "rerank=perhaps"], "the value of rerank is 'perhaps'; one is true or false"),
        (["--compare", "diversity=7"], "the value of diversity is '7'; one is 0 to 1"),
        (["--compare", "diversity=0.1,=1"], "'' is no setting of a search"),
        (["--compare", "nowhere"], 'collection "nowhere" does not exist'),
        (["--compare", "handbook"], "'handbook' is no other collection"),
        (["--compare", "a/b"], "'a/b' is no other collection, and no setting such as rerank=false"),
        (["--answers", "--model", "ecko"], 'model "ecko" does not exist. Did you mean "echo"?'),
    ):
        done = await knowledge("eval", str(gold), "--in", "handbook", *words)
        assert done.code
        assert expected in done.err
    assert shelf.asked == [], "nothing is measured before that"
    assert "name the collection" in (await knowledge("eval", str(gold))).err
    assert "leave --compare and --answers out" in (await knowledge("eval", str(gold), "--chunkers", "--answers")).err
    answered = gold.with_name("answered.jsonl")
    assert "cannot be said" in (await knowledge("eval", str(answered), "--in", "handbook")).out


def test_chunkers_are_compared_on_spans(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "keys.md").write_text("# Keys\n\nA key is valid for thirty days.\n\n# Teams\n\nA team pays.\n")
    gold = tmp_path / "gold.jsonl"
    gold.write_text('{"query": "how long?", "relevant": [{"document": "keys.md", "start": 8, "end": 39}]}\n')
    assert run(["knowledge", "eval", str(gold), "--chunkers"]) == 0
    told = capsys.readouterr()
    assert "| chunker | chunks | tokens, mean |" in told.out
    assert "| structure (default) | 1 |" in told.out
    assert "| fixed, 128 | 1 |" in told.out
    assert "structure (default): measured" in told.err


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
