"""Reading a file that may be anything."""

import os
import threading
from pathlib import Path

import pytest

from parkway.core.errors import Unreadable
from parkway.retrieval.parsing import file
from parkway.retrieval.parsing.file import read_file


def test_all_bytes_of_a_file_with_any_name(tmp_path: Path) -> None:
    for name in ("a.txt", "two\nlines.md", "ünï 世界.pdf", "a" * 250):
        (tmp_path / name).write_bytes(b"x" * 3_000_000)
        assert len(read_file(tmp_path / name, 3_000_000)) == 3_000_000
    undecodable = os.fsencode(tmp_path) + b"/\xff\xfe.txt"
    with open(undecodable, "wb") as opened:  # noqa: PTH123 - a name that is no text
        opened.write(b"y")
    assert read_file(Path(os.fsdecode(undecodable)), 10) == b"y"


def test_what_is_no_regular_file_or_too_large_or_gone(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(b"12345")
    (tmp_path / "closed").symlink_to(tmp_path / "nowhere")
    for name, reason in (
        ("pipe", "not a regular file"),
        (".", "not a regular file"),
        ("large", "larger than 4 bytes"),
        ("closed", "cannot be opened: No such file"),
        ("missing", "cannot be opened"),
    ):
        with pytest.raises(Unreadable, match=reason):
            read_file(tmp_path / name, 4)
    with pytest.raises(Unreadable, match="not a regular file"):
        read_file(Path("/dev/zero"), 1 << 40)


def test_a_file_that_grows_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"x" * 1000)
    read = os.read

    def slow(descriptor: int, count: int) -> bytes:
        piece = read(descriptor, min(count, 400))
        writer = threading.Thread(target=lambda: path.open("ab").write(b"more"))
        writer.start()
        writer.join()
        return piece

    monkeypatch.setattr(file.os, "read", slow)
    with pytest.raises(Unreadable, match="changed while it was read"):
        read_file(path, 1_000_000)
