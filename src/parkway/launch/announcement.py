"""What a child says on its standard output: that it serves, and what is wrong."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from parkway.launch.trouble import PREFIX as TROUBLE

_READY = b"ready "
_LONGEST_LINE = 1 << 20


class Announcement:
    """Reads a child's standard output: its `ready ADDRESS` line and those about trouble. It drains the rest, so that
    the child never blocks.

    Args:
        ready: Called once, with the address.
        trouble: Called with each line about what is wrong, without its prefix.
    """

    def __init__(self, ready: Callable[[str], None], trouble: Callable[[bytes], None] = lambda _: None) -> None:
        self._ready = ready
        self._trouble = trouble
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
        *lines, rest = (self._line + data).split(b"\n")
        self._line = rest[-_LONGEST_LINE:]
        for line in lines:
            if line.startswith(TROUBLE):
                self._trouble(line.removeprefix(TROUBLE))
            elif line.startswith(_READY) and not self._seen:
                self._seen = True
                self._ready(line.removeprefix(_READY).decode(errors="replace").strip())
