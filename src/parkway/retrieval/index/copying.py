"""A copy of a directory that takes little more room: files that never change are shared, holes stay holes."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

_PIECE = 64 << 20


def copy_directory(source: Path, target: Path, shared: Callable[[Path], bool] = lambda _: False) -> None:
    """Copies all files of `source` into `target`, which is made. Nobody may change them meanwhile.

    Args:
        shared: Which files nobody will ever change: the copy has the same ones, where the file system allows it.
    """
    target.mkdir()
    for path in sorted(source.rglob("*")):
        place = target / path.relative_to(source)
        if path.is_dir():
            place.mkdir()
        elif not (shared(path) and _linked(path, place)):
            _copy_file(path, place)


def _linked(source: Path, target: Path) -> bool:
    try:
        target.hardlink_to(source)
    except OSError:
        return False
    return True


def _copy_file(source: Path, target: Path) -> None:
    with source.open("rb") as reading, target.open("wb") as writing:
        size = os.fstat(reading.fileno()).st_size
        os.ftruncate(writing.fileno(), size)
        for start, end in _data(reading.fileno(), size):
            _copy_range(reading.fileno(), writing.fileno(), start, end)


def _data(descriptor: int, size: int) -> list[tuple[int, int]]:
    """Where in a file something other than a hole is."""
    if not hasattr(os, "SEEK_DATA"):
        return [(0, size)]
    found: list[tuple[int, int]] = []
    end = 0
    while end < size:
        try:
            start = os.lseek(descriptor, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # only a hole is left
                break
            raise
        end = os.lseek(descriptor, start, os.SEEK_HOLE)
        found.append((start, end))
    return found


def _copy_range(reading: int, writing: int, start: int, end: int) -> None:
    kernel_copies = hasattr(os, "copy_file_range")
    while start < end:
        length = min(_PIECE, end - start)
        if kernel_copies:
            try:
                done = os.copy_file_range(reading, writing, length, start, start)
            except OSError:  # between some file systems it cannot
                kernel_copies = False
                continue
        else:
            done = os.pwrite(writing, os.pread(reading, length, start), start)
        if done == 0:
            return
        start += done
