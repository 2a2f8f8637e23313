"""The log file of a child: quoted from where the child began, bounded in size."""

import os
from pathlib import Path

from parkway.launch.log_file import LogFile


def _write(fd: int, text: str) -> None:
    os.write(fd, text.encode())
    os.close(fd)


def test_the_tail_is_that_of_the_latest_child(tmp_path: Path) -> None:
    log = LogFile(tmp_path, "engine")
    _write(log.open(), "from the first\n")
    _write(log.open(), "one\n\n  \ntwo\nthree\n")
    assert log.tail(2) == ["two", "three"]
    assert log.tail(10) == ["one", "two", "three"]
    assert log.path.read_text().startswith("from the first\n"), "the file itself keeps what came before"


def test_a_name_becomes_a_file_inside_the_folder(tmp_path: Path) -> None:
    log = LogFile(tmp_path, "engine ../../etc/passwd")
    os.close(log.open())
    assert log.path.parent == tmp_path
    assert log.path.exists()


def test_a_large_file_moves_away_while_a_child_writes(tmp_path: Path) -> None:
    log = LogFile(tmp_path, "engine", max_bytes=1000)
    fd = log.open()
    os.write(fd, b"a" * 1500)
    log.rotate()
    assert (tmp_path / "engine.log.1").read_bytes() == b"a" * 1000
    _write(fd, "after\n")
    assert log.path.read_text() == "after\n"
    assert log.tail() == ["after"]


def test_a_small_file_stays(tmp_path: Path) -> None:
    log = LogFile(tmp_path, "engine", max_bytes=1000)
    _write(log.open(), "short\n")
    log.rotate()
    assert log.tail() == ["short"]
    assert not (tmp_path / "engine.log.1").exists()


def test_a_missing_file_has_no_tail(tmp_path: Path) -> None:
    assert LogFile(tmp_path, "never-opened").tail() == []
