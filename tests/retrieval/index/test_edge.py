"""What the embedded store promises beyond the contract: against crashes, damage, and a second process."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from parkway.core.errors import IndexDamaged, IndexUnavailable
from parkway.core.tasks import start_thread
from parkway.retrieval.index import edge as edge_module
from parkway.retrieval.index.config import IndexConfig
from parkway.retrieval.index.copying import copy_directory
from parkway.retrieval.index.directory import disk_bytes
from parkway.retrieval.index.edge import EdgeIndex
from parkway.retrieval.index.entry import entries
from parkway.retrieval.index.generation import never_changes
from parkway.retrieval.index.index import Filter, Query
from parkway.retrieval.index.journal import Journal, Upsert, read, torn
from tests.retrieval.index.corpus import DIMENSIONS, passage, vectors

CONFIG = IndexConfig(graph_from=50, build_threads=1, build_niceness=0)
ANYBODY = Filter(frozenset({"a"}))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "index"


def opened(directory: Path) -> EdgeIndex:
    return EdgeIndex(directory, CONFIG, DIMENSIONS)


def start_writer(directory: Path, first: int, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.retrieval.index.writer", str(directory), str(first), *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)


def acknowledged(process: subprocess.Popen[str], word: str, times: int, *, alone: bool = False) -> Iterator[str]:
    """What it says until it is killed, with its children or alone, a moment after it has said `word` so often."""
    assert process.stdout is not None
    for line in process.stdout:
        times -= word in line
        if times == 0:
            time.sleep(random.random() * 0.03)
            (os.kill if alone else os.killpg)(process.pid, signal.SIGKILL)
            times = -1
        if line.endswith("\n"):
            yield line.strip()
    process.wait(30)


def check(index: EdgeIndex, expected: dict[str, set[str]]) -> None:
    """The documents are there in one of these versions (`-`: not at all), each passage once."""
    there = index.documents()
    for document, versions in expected.items():
        assert (there.get(document) or {"-"}) <= versions, document
    for document, versions in there.items():
        for version in versions:
            found = [one for one in index.passages(document) if one.version == version]
            assert sorted(one.ordinal for one in found) == list(range(len(found)))
    assert index.size().passages == sum(len(index.passages(document)) for document in there)


def follow(expected: dict[str, set[str]], lines: Iterator[str]) -> int:
    """Notes what was acknowledged, and that the change after it may have been made; how often it was optimised."""
    optimised = 0
    document = version = ""
    for line in lines:
        if line.startswith("d"):
            document, version = line.split()
            expected[document] = {version}
        optimised += line == "optimised"
    if document:
        expected[document] = {"1": {"1", "2"}, "2": {"2", "-"}, "-": {"-"}}[version]
    return optimised


def test_what_was_acknowledged_outlives_kill_9(directory: Path) -> None:
    """Twenty times, at random moments, on the same directory."""
    expected: dict[str, set[str]] = {}
    for round_ in range(20):
        first = (round_ + 1) * 1000
        process = start_writer(directory, first)
        follow(expected, acknowledged(process, "d", random.randint(1, 30)))
        if round_ % 5 == 4:
            index = opened(directory)
            check(index, expected)
            index.close()
    index = opened(directory)
    check(index, expected)
    index.close()


def test_what_was_acknowledged_outlives_kill_9_while_optimising(directory: Path) -> None:
    """The process and the one that makes the next generation, killed together or the first alone, while both work."""
    expected: dict[str, set[str]] = {}
    optimised = 0
    for round_ in range(5):
        process = start_writer(directory, (round_ + 1) * 1000, "optimise")
        word, times = (("d", 40), ("optimising", 1), ("optimised", 1), ("optimising", 2), ("d", 80))[round_]
        optimised += follow(expected, acknowledged(process, word, times, alone=round_ % 2 == 1))
        index = opened(directory)
        check(index, expected)
        assert len(list(directory.glob("generation-*"))) == 1
        index.close()
    assert optimised > 0
    index = opened(directory)
    index.optimise()
    check(index, expected)
    index.close()


def test_a_torn_record_was_never_acknowledged(directory: Path) -> None:
    index = opened(directory)
    index.upsert([passage(1)], vectors(1))
    (log,) = (directory / "journal").glob("*.log")
    whole = log.read_bytes()
    copies = directory.parent / "copy"
    torn = [whole[:cut] for cut in (7, 8, len(whole) - 1)]
    for tail in (*torn, bytes(8), bytes(5000), whole[:8] + bytes(len(whole) - 8)):  # grown, but never written
        shutil.rmtree(copies, ignore_errors=True)
        copy_directory(directory, copies)
        (copies / "journal" / log.name).write_bytes(whole + tail)
        other = opened(copies)
        other.upsert([passage(2)], vectors(1))
        other.close()
        other = opened(copies)
        assert other.size().passages == 2
        other.close()
    index.close()


def test_a_second_process_gets_an_error_that_says_why(directory: Path) -> None:
    process = start_writer(directory, 0)
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n"
    try:
        with pytest.raises(IndexUnavailable, match=rf"another process \(id {process.pid}\)"):
            opened(directory)
    finally:
        process.kill()
        process.wait(30)
    opened(directory).close()


def test_the_same_process_cannot_open_it_twice(directory: Path) -> None:
    index = opened(directory)
    with pytest.raises(IndexUnavailable, match="another process"):
        opened(directory)
    index.close()
    with pytest.raises(IndexUnavailable, match="closed"):
        index.search(Query("x", None, ANYBODY))
    with pytest.raises(IndexUnavailable, match="closed"):
        index.upsert([passage(1)], vectors(1))
    opened(directory).close()


def cut(name: str) -> None:
    path = Path(name)
    os.truncate(path, path.stat().st_size // 2)


DAMAGES = {
    "no index.json": lambda d: (d / "index.json").unlink(),
    "half of index.json": lambda d: cut(d / "index.json"),
    "another format": lambda d: (d / "index.json").write_text(
        (d / "index.json").read_text().replace('"format":1', '"format":99')
    ),
    "no generation": lambda d: shutil.rmtree(next(d.glob("generation-*"))),
    "no segments": lambda d: shutil.rmtree(next(d.glob("generation-*/segments"))),
    "no vectors": lambda d: shutil.rmtree(next(d.glob("generation-*/segments/*/vector_storage-meaning"))),
    "half of the vectors": lambda d: cut(next(d.glob("generation-*/segments/*/vector_storage-meaning/matrix.dat"))),
    "half of the passages": lambda d: cut(next(d.glob("generation-*/segments/*/payload_storage/page_0.dat"))),
    "a segment without words": lambda d: next(d.glob("generation-*/segments/*/segment.json")).write_text("{"),
    "no journal": lambda d: shutil.rmtree(d / "journal"),
    "a hole in the journal": lambda d: spoil(sorted(d.glob("journal/*.log"))[-1]),
}


def spoil(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[20] ^= 255
    path.write_bytes(content)


def test_damage_is_told_and_what_to_do(directory: Path) -> None:
    index = opened(directory)
    index.upsert([passage(number) for number in range(100)], vectors(100))
    index.optimise()
    for number in (200, 201):
        index.upsert([passage(number)], vectors(1))
    copies = directory.parent / "copy"
    for name, damage in DAMAGES.items():
        shutil.rmtree(copies, ignore_errors=True)
        copy_directory(directory, copies)
        damage(copies)
        with pytest.raises(IndexDamaged, match="remove the directory, and its documents are indexed anew"):
            opened(copies)
        print(name)
    index.close()


def there(directory: Path, words: list[str]) -> list[str]:
    """Those that stand in any file of the directory."""
    contents = [path.read_bytes() for path in directory.rglob("*") if path.is_file() and path.stat().st_blocks]
    return [word for word in words if any(word.encode() in content for content in contents)]


def test_what_was_removed_is_in_no_file(directory: Path) -> None:
    """Not in the store, nor in a journal: of a removed document, of a replaced version, of replaced metadata."""
    index = opened(directory)
    # Edge compresses: most of what resembles nothing stands there as it is.
    names = [base64.b64encode(hashlib.sha256(str(number).encode()).digest()).decode()[:24] for number in range(120)]
    passages = [passage(number, text=name) for number, name in enumerate(names)]
    rows = vectors(120)
    index.upsert(passages, rows)
    index.upsert([passage(500, metadata={"who": "0w7Zq2mKx9Lp4Rt"})], vectors(1))
    for generation in range(2):
        index.optimise()
        start = 20 * generation
        assert len(there(directory, names[start : start + 20])) > 10
        index.remove(f"d{2 * generation}")
        index.upsert([passage(start + 10 + at, version="2", text="rewritten") for at in range(10)], rows[:10])
        index.remove(f"d{2 * generation + 1}", but="2")
        index.upsert([passage(500, metadata={"who": "somebody"})], vectors(1))
        assert index.size().removed > 0
        assert index.optimise()
        assert index.size().removed == 0
        assert there(directory, ["0w7Zq2mKx9Lp4Rt", *names[start : start + 20]]) == []
        assert len(there(directory, names[50:60])) > 5
    assert not index.optimise()
    index.close()
    index = opened(directory)
    assert index.size().removed == 0
    index.remove("d11")
    index.close()
    index = opened(directory)
    assert index.size().removed == 1
    index.optimise()
    assert there(directory, [names[111]]) == []
    index.close()


def test_no_change_touches_the_files_that_generations_share(directory: Path) -> None:
    """Not removing, replacing, or a new index of numbers; and the next generation has the very same ones."""
    index = opened(directory)
    index.upsert([passage(number) for number in range(100)], vectors(100))
    index.optimise()

    def contents() -> dict[tuple[str, ...], bytes]:
        generation = index._generation.directory
        return {
            path.relative_to(generation).parts: path.read_bytes()
            for path in generation.rglob("*")
            if path.is_file() and never_changes(path)
        }

    before = contents()
    assert {path[-1] for path in before} >= {"matrix.dat", "quantized.data", "links_compressed.bin", "page_0.dat"}
    index.remove("d3")
    index.upsert([passage(number, metadata={"year": 1999}) for number in range(40, 60)], vectors(20))
    index.upsert([passage(number) for number in range(200, 300)], vectors(100))
    index._checkpoint()
    assert before.items() <= contents().items()
    copy = directory / "generation-copy"
    copy_directory(index._generation.directory, copy, never_changes)
    shared = {path: (copy / Path(*path)).stat().st_ino for path in before}
    assert shared == {path: (index._generation.directory / Path(*path)).stat().st_ino for path in before}
    assert not any(
        path.samefile(index._generation.directory / path.relative_to(copy)) for path in copy.rglob("*.versions")
    )
    index.close()


def test_who_may_see_a_passage_is_asked_from_the_first_one_on_that_not_everybody_may(directory: Path) -> None:
    secret = passage(50, text="common secret", access=("user:ann",))

    def found(index: EdgeIndex, name: str) -> set[str]:
        query = Query("common", vectors(1)[0], Filter(frozenset({name})), vector_depth=1000)
        return {one.passage.text for one in index.search(query)} & {"common secret"}

    index = opened(directory)
    index.upsert([passage(number, text="common") for number in range(10)], vectors(10))
    assert index._open
    index._generation.write(
        entries([secret], vectors(1), DIMENSIONS), vectors(1), [index._words.of_passage("common")], 1
    )
    assert found(index, "user:bob") == set(), "a search that began before it came"
    index.upsert([secret], vectors(1))
    assert not index._open
    for _ in range(2):
        assert found(index, "user:ann") == {"common secret"}
        assert found(index, "user:bob") == set()
        index.close()
        index = opened(directory)
        assert not index._open
    index.close()


def test_what_was_removed_from_a_small_index_is_in_no_file(directory: Path) -> None:
    """One that has no graph."""
    index = opened(directory)
    index.upsert([passage(1, text="unmistakeable"), passage(20)], vectors(2))
    index.remove("d0")
    assert index.optimise()
    assert there(directory, ["unmistakeable"]) == []
    assert index.size().passages == 1
    index.close()


def test_an_optimisation_that_fails_changes_nothing(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = opened(directory)
    index.upsert([passage(number) for number in range(100)], vectors(100))
    index.remove("d3")
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(IndexUnavailable, match="optimising ended with status 1"):
        index.optimise()
    monkeypatch.undo()
    index.upsert([passage(300)], vectors(1))
    assert index.size().passages == 91
    assert index.size().removed == 1
    assert len(list(directory.glob("generation-*"))) == 1
    assert index.optimise()
    assert index.size().passages == index.size().indexed == 91
    index.close()


def test_what_is_changed_while_it_is_optimised_is_carried_over(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the other process looks, after it has ended, and again in the last moment."""
    index = opened(directory)
    index.upsert([passage(number) for number in range(100)], vectors(100))
    rebuild, take_over = index._rebuild, index._take_over

    def change(number: int) -> None:
        index.upsert([passage(number)], vectors(1, seed=number))
        index.remove(f"d{number // 100}")

    monkeypatch.setattr(index, "_rebuild", lambda order: [change(200), rebuild(order), change(300)][1])
    monkeypatch.setattr(index, "_take_over", lambda target, made: [change(400), take_over(target, made)][1])
    assert index.optimise()
    assert index.size().indexed == 70
    for number in (200, 300, 400):
        (found,) = index.search(Query(f"w{number}", None, ANYBODY))
        assert found.passage == passage(number)
    assert set(index.documents()) == {"d0", "d1", "d5", "d6", "d7", "d8", "d9", "d20", "d30", "d40"}
    index.close()
    index = opened(directory)
    assert index.size().passages == 73
    index.close()


def test_a_full_disk_refuses_writes_and_keeps_what_is_there(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = opened(directory)
    index.upsert([passage(1)], vectors(1))
    monkeypatch.setattr(edge_module, "FREE_BYTES", 1 << 60)
    with pytest.raises(IndexUnavailable, match="are free on this disk"):
        index.upsert([passage(2)], vectors(1))
    monkeypatch.undo()
    monkeypatch.setattr(os, "fdatasync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(IndexUnavailable, match="No space left on device; nothing was written"):
        index.upsert([passage(3)], vectors(1))
    monkeypatch.undo()
    assert index.size().passages == 1
    index.upsert([passage(4)], vectors(1))
    index.close()
    index = opened(directory)
    assert {one.passage.text for one in index.search(Query("passage", None, ANYBODY))} == {
        passage(1).text, passage(4).text,
    }  # fmt: skip
    index.close()


class Failing:
    """Has an operation on files fail, as it does when a disk is full, broken, or too many files are open."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, path: str) -> None:
        self.times = 0
        was = getattr(owner, name)

        def call(first: Any, *arguments: Any, **named: Any) -> Any:
            if path in str(first):
                self.times += 1
                raise OSError(24, "Too many open files")
            return was(first, *arguments, **named)

        monkeypatch.setattr(owner, name, call)


@pytest.mark.parametrize(("operation", "path"), [("open", "00000003.log"), ("open", "index.new"), ("unlink", ".log")])
def test_a_checkpoint_that_fails_is_no_fault_of_a_passage(
    directory: Path, monkeypatch: pytest.MonkeyPatch, operation: str, path: str
) -> None:
    """What a passage is refused for is a ValueError; a document is set aside for it."""
    monkeypatch.setattr(edge_module, "CHECKPOINT_BYTES", 1)
    index = opened(directory)
    index.upsert([passage(0)], vectors(1))
    with monkeypatch.context() as broken:
        failing = Failing(broken, Path, operation, path)
        for number in range(1, 4):
            with pytest.raises(IndexUnavailable, match="Too many open files"):
                index.upsert([passage(number)], vectors(1))
            assert index.size().passages == number + 1
        assert failing.times >= 3
    index.upsert([passage(4)], vectors(1))
    index.close()
    index = opened(directory)
    assert index.size().passages == 5
    index.close()


@pytest.mark.parametrize(("operation", "path"), [("open", ".log"), ("open", "index.new"), ("unlink", ".log")])
def test_a_generation_that_is_named_is_never_removed(
    directory: Path, monkeypatch: pytest.MonkeyPatch, operation: str, path: str
) -> None:
    """Whatever fails while a generation takes the place of another, both the index and its directory go on."""
    index = opened(directory)
    index.upsert([passage(number) for number in range(100)], vectors(100))
    take_over = index._take_over

    def in_trouble(target: Path, made: Any) -> None:
        with monkeypatch.context() as broken:
            Failing(broken, Path, operation, path)
            take_over(target, made)

    monkeypatch.setattr(index, "_take_over", in_trouble)
    index._catch_up = lambda generation, end: end  # type: ignore[method-assign]  # it opens logs, too
    with pytest.raises(IndexUnavailable, match="Too many open files"):
        index.optimise()
    monkeypatch.undo()
    copies = directory.parent / "copy"
    copy_directory(directory, copies)
    other = opened(copies)
    assert other.size().passages == 100
    other.close()
    index.upsert([passage(100)], vectors(1))
    assert index.size().passages == 101
    index.close()
    index = opened(directory)
    assert index.size().passages == 101
    index.optimise()
    index.close()


def test_an_index_that_cannot_be_brought_to_disk_can_be_closed(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = opened(directory)
    index.upsert([passage(1)], vectors(1))
    with monkeypatch.context() as broken:
        Failing(broken, Path, "open", "index.new")
        with pytest.raises(OSError, match="Too many open files"):
            index.close()
    index = opened(directory)
    assert index.size().passages == 1
    index.close()


def test_a_journal_may_be_read_while_it_is_written(tmp_path: Path) -> None:
    """A record may be there in part, and a moment later whole, with others behind it."""
    writer = Journal(tmp_path / "journal")
    record = Upsert([passage(1)], bytes(range(256)) * 4096)
    writer.append(record)
    path = tmp_path / "journal" / "00000001.log"
    whole = path.read_bytes()
    path.write_bytes(whole + whole[: len(whole) // 2])
    reading = read(tmp_path / "journal", (1, 0))
    assert next(reading)[1] == (1, len(whole))

    class Growing(io.FileIO):
        """Is written on as soon as its end was seen."""

        def readinto(self, buffer: Any) -> int:
            count = super().readinto(buffer)
            if count == 0:
                path.write_bytes(whole * 3)
            return count

    with io.BufferedReader(Growing(path)) as file:
        file.seek(len(whole))
        head = file.read(8)
        body = file.read(len(whole) - 8)
        assert len(body) < len(whole) - 8
        assert torn(head, body, len(whole) - 8, file)
    assert [position for _, position in read(tmp_path / "journal", (1, len(whole)))] == [
        (1, 2 * len(whole)),
        (1, 3 * len(whole)),
    ]
    writer.close()


def test_a_long_journal_is_brought_to_disk(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge_module, "CHECKPOINT_BYTES", 5000)
    index = opened(directory)
    for number in range(60):
        index.upsert([passage(number)], vectors(1, seed=number))
    assert sum(path.stat().st_size for path in (directory / "journal").glob("*.log")) < 6000
    process_sees = directory.parent / "copy"
    copy_directory(directory, process_sees)
    other = opened(process_sees)
    assert other.size().passages == 60
    other.close()
    index.close()


def test_searches_have_their_turn_beside_a_writer(directory: Path) -> None:
    """A search waits for one piece of what is written, not for all of it."""
    index = opened(directory)
    many = [passage(number) for number in range(800)]
    rows = vectors(800)
    index.upsert(many[:10], rows[:10])
    done = threading.Event()
    writer = start_thread(lambda: [index.upsert(many, rows), done.set()], name="test/writer")
    searches = 0
    while not done.is_set():
        index.search(Query("", np.asarray(rows[3]), ANYBODY, vector_depth=1))
        searches += 1
    writer.join(30)
    assert searches > 10
    index.close()


def test_the_size_is_told_while_folders_vanish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As they do while the next generation is made."""
    (tmp_path / "stays").mkdir()
    (tmp_path / "stays" / "file").write_bytes(b"x" * 9000)
    (tmp_path / "vanishes").mkdir()
    scan = os.scandir

    def scanned(path: str) -> Any:
        if str(path).endswith("vanishes"):
            Path(path).rmdir()
        return scan(path)

    monkeypatch.setattr(os, "scandir", scanned)
    assert disk_bytes(tmp_path) >= 9000
