"""The line by which a child says that it serves."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

_PREFIX = b"ready "
_LONGEST_LINE = 4_096


class Announcement:
    """Reads a child's standard output up to its `ready ADDRESS` line; drains the rest, so that it never blocks.

    Args:
        ready: Called once, with the address.
    """

    def __init__(self, ready: Callable[[str], None]) -> None:
        self._ready = ready
        self._seen = False
        self._line = b""
        self._fd, self.child_fd = os.pipe()
        os.set_blocking(self._fd, False)
        asyncio.get_running_loop().add_reader(self._fd, self._read)

    def handed_over(self) -> None:
        """The child has its copy of the pipe's other end, or never will: ours is closed, so that its end is seen."""
        os.close(self.child_fd)

    def close(self) -> None:
        """Stops reading."""
        if self._fd >= 0:
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _read(self) -> None:
        try:
            data = os.read(self._fd, 65_536)
        except BlockingIOError:
            return
        if not data:
            self.close()
        if self._seen:
            return
        *lines, rest = (self._line + data).split(b"\n")
        self._line = rest[-_LONGEST_LINE:]
        for line in lines:
            if line.startswith(_PREFIX):
                self._seen = True
                self._ready(line.removeprefix(_PREFIX).decode(errors="replace").strip())
                return
