"""The log file of a child process: appended to by the child itself, kept small, quoted when the child dies."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


class LogFile:
    """`<folder>/<name>.log`, and the one before it as `<name>.log.1`.

    The child writes through its own descriptor, so that nothing is lost when its supervisor dies, and in append mode,
    so that the file can be emptied under it.

    Args:
        max_bytes: When a file grows over this, its content moves to `.log.1`.
    """

    def __init__(self, folder: Path, name: str, max_bytes: int = 8 << 20) -> None:
        self.path = folder / f"{_UNSAFE.sub('-', name)}.log"
        self._max_bytes = max_bytes
        self._start = 0

    def open(self) -> int:
        """A descriptor for a new child; `tail` then quotes only what is written from here on."""
        self.rotate()
        fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._start = os.fstat(fd).st_size
        return fd

    def rotate(self) -> None:
        """Moves the content away if the file is too large. Cheap; to be called now and then while a child runs."""
        try:
            if self.path.stat().st_size <= self._max_bytes:
                return
        except FileNotFoundError:
            return
        # Copied and emptied instead of renamed, because a running child holds this very file open. On a full disk the
        # copy fails, and emptying is what helps.
        with contextlib.suppress(OSError), self.path.open("rb") as source:
            source.seek(-self._max_bytes, os.SEEK_END)
            self.path.with_suffix(".log.1").write_bytes(source.read(self._max_bytes))
        os.truncate(self.path, 0)
        self._start = 0

    def tail(self, lines: int = 5) -> list[str]:
        """The last lines that the latest child wrote, without empty ones; none if the file cannot be read."""
        try:
            with self.path.open("rb") as source:
                size = source.seek(0, os.SEEK_END)
                source.seek(max(self._start, size - 16_384))
                text = source.read(16_384).decode(errors="replace")
        except OSError:
            return []
        return [line.rstrip() for line in text.splitlines() if line.strip()][-lines:]
