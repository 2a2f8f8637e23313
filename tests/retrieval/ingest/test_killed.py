"""kill -9 at every boundary of ingestion: nothing is lost, nothing is there twice."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from parkway.retrieval.ingest.uploads import Header
from tests.retrieval.ingest.stage import Stage, vector

BOUNDARIES = (
    "reconciled*1", "kept*1", "noted upload*1", "kept*2", "discarded*1", "listed*2", "noted*2", "gone*1", "claimed*1",
    "read*1", "parsed*1", "embedded*1", "upserted*1", "replaced*1", "removed*1", "finishing*1", "finished*1",
)  # fmt: skip


def prepared(tmp_path: Path) -> tuple[Path, Path]:
    """A home in which everything was indexed, and a folder in which much has happened since."""
    home, folder = tmp_path / "left", tmp_path / "folder"
    stage = Stage(home, folder=folder)
    for name in ("stays", "changes", "goes", "breaks"):
        stage.write(f"{name}.txt", f"{name}: as it was")
    stage.write(
        "long.txt",
        "\n\n".join(f"Paragraph {n} has words: {' '.join(f'w{n}x{m}' for m in range(60))}" for n in range(30)),
    )
    stage.write("mends.pdf", b"%PDF-1.4 broken")
    ingestion = stage.start()
    ingestion.put(Header("changed"), [b"as it was sent first"])
    ingestion.put(Header("discarded"), [b"soon to be discarded"])
    stage.settle()
    stage.stop()
    # What a crash of long ago left in the index.
    known = stage.documents()
    one = next(one for one in known if one.uri.endswith("stays.txt"))
    [passage] = stage.index.passages(one.document_id)
    stray = [
        msgspec.structs.replace(passage, version="other", passage_id="00000000-0000-0000-0000-000000000001"),
        msgspec.structs.replace(passage, document_id="nobody's", passage_id="00000000-0000-0000-0000-000000000002"),
    ]
    stage.index.upsert(stray, [vector("a"), vector("b")])
    stage.close()
    stage.write("changes.txt", "changes: as it is now")
    stage.write("new.txt", "new: came later")
    stage.write("breaks.txt", b"\x89PNG\r\n\x1a\n")
    (folder / "mends.pdf").unlink()
    stage.write("mends.txt", "mends: in another form")
    stage.write(
        "long.txt",
        "\n\n".join(f"Paragraph {n} has words: {' '.join(f'w{n}x{m}' for m in range(60))}" for n in range(5, 40)),
    )
    (folder / "goes.txt").unlink()
    return home, folder


@pytest.fixture
def in_memory(tmp_path: Path) -> Iterator[Path]:
    """A directory in memory where there is one: a killed process leaves the same there, without the disk's time."""
    if not Path("/dev/shm").is_dir():
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="parkway-test-") as found:
        yield Path(found)


def test_wherever_it_is_killed_the_next_start_makes_it_whole(in_memory: Path) -> None:
    tmp_path = in_memory
    home, folder = prepared(tmp_path)
    copies = tmp_path / "copies"
    copies.mkdir()
    command = [sys.executable, "-m", "tests.retrieval.ingest.killed", str(home), str(folder), str(copies)]
    done = subprocess.run(
        [*command, "-", *BOUNDARIES, "orphan removed*1"], stdout=subprocess.PIPE, text=True, check=True
    )
    clean, *others = [json.loads(line) for line in done.stdout.splitlines()]
    assert not clean["killed"]
    assert clean["second"] == 0
    states = {row[0].rsplit("/", 1)[-1]: row[1] for row in clean["catalogue"]}
    assert states == {
        "stays.txt": "indexed", "changes.txt": "indexed", "new.txt": "indexed", "long.txt": "indexed",
        "mends.txt": "indexed", "breaks.txt": "set_aside", "new": "indexed", "changed": "indexed",
    }  # fmt: skip
    assert clean["content"]["changed"] == [[0, "a changed upload"]]
    assert len(clean["uploads"]) == 2
    assert len(others) == len(BOUNDARIES) + 1
    for other in others:
        assert other["killed"], f"{other['boundary']} is never reached"
        for what in ("second", "content", "catalogue", "uploads"):
            assert other[what] == clean[what], other["boundary"]
