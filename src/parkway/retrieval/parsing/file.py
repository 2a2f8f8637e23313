"""A file's bytes, read so that nothing that lies in a folder can hang or fill the process that reads it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from parkway.core.errors import Unreadable

_PIECE = 1 << 20


class Unsettled(Unreadable):
    """It cannot be read at this moment, which says nothing of the next: its disk is away, or it is being written to."""


def read_file(path: Path, most: int) -> bytes:
    """All bytes of a regular file.

    Raises:
        Unreadable: It is too large, no regular file, may not be read, or changed while it was read.
    """
    try:
        # Without O_NONBLOCK the opening of a named pipe would wait for somebody who writes into it.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise Unreadable(f"cannot be opened: {error.strerror}") from error
    return read_open(descriptor, most)


def read_open(descriptor: int, most: int) -> bytes:
    """All bytes of a regular file that is open, and is closed afterwards.

    Raises:
        Unreadable: As of `read_file`.
    """
    try:
        return _read(descriptor, most)
    except OSError as error:
        raise Unsettled(f"cannot be read: {error.strerror}") from error
    finally:
        os.close(descriptor)


def _read(descriptor: int, most: int) -> bytes:
    before = os.fstat(descriptor)
    if not stat.S_ISREG(before.st_mode):
        raise Unreadable("is not a regular file")
    if before.st_size > most:
        raise Unreadable(f"is larger than {most:,} bytes ({before.st_size:,}); `parsing.max_bytes` sets the limit")
    pieces: list[bytes] = []
    length = 0
    while piece := os.read(descriptor, _PIECE):
        pieces.append(piece)
        length += len(piece)
        if length > before.st_size:
            break
    after = os.fstat(descriptor)
    if length != before.st_size or (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise Unsettled("changed while it was read; it is read again once it is at rest")
    return b"".join(pieces)
