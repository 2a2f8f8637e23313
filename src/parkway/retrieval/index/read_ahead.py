"""Bringing files into the page cache in the order in which they lie on the disk.

Edge maps its files and tells the kernel that it reads them in no order: then each page is fetched by itself, a hundred
times as slowly, while it holds the interpreter's lock. What is in the cache before costs nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

_PIECE = 4 << 20


def read_ahead(paths: Iterable[Path], *, most_bytes: int | None = None) -> None:
    """Reads files to their ends; other threads run meanwhile. Holes are not read.

    Args:
        most_bytes: Together they may have this size; else nothing is read.
    """
    chosen = [path for path in paths if path.is_file()]
    if most_bytes is not None and sum(path.stat().st_blocks * 512 for path in chosen) > most_bytes:
        return
    buffer = bytearray(_PIECE)
    for path in chosen:
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except OSError:
            continue  # it is gone: another generation has taken its place
        try:
            if os.fstat(descriptor).st_blocks:
                while os.readv(descriptor, [buffer]):
                    pass
        finally:
            os.close(descriptor)


def free_memory_bytes() -> int:
    """What the kernel could give without taking it from anybody; 0 where it does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")), 0)
