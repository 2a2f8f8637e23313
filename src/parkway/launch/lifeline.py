"""Tying a child process to the one that started it, so that no kind of exit leaves an orphan.

A pipe is the lifeline: the parent keeps the write end and never writes to it; every child holds the read end. Whatever
ends the parent, kill -9 included, closes the pipe, and the child's read returns. On Linux the kernel is asked as well
(`PR_SET_PDEATHSIG`), which also reaches a child whose interpreter is stuck in native code.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys

from parkway.core.tasks import start_thread

_PR_SET_PDEATHSIG = 1
ORPHANED = 75
"""Exit code of a child whose parent is gone (EX_TEMPFAIL of sysexits.h)."""


class Lifeline:
    """The parent's side: one pipe for all children. It lives as long as the object, at most as long as the process."""

    def __init__(self) -> None:
        self.child_fd, self._parent_fd = os.pipe()

    def close(self) -> None:
        """Lets go: every child that still holds on exits at once."""
        os.close(self._parent_fd)
        os.close(self.child_fd)


def hold(fd: int) -> None:
    """The child's side: from now on this process ends at once when the parent is gone.

    Args:
        fd: The read end of the parent's lifeline, inherited. Closed by nobody but the kernel.
    """
    # Inherited from the parent for us alone: a process that we start must not keep reading it.
    os.set_inheritable(fd, False)
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    start_thread(lambda: _wait(fd), name="lifeline")


def _wait(fd: int) -> None:
    with contextlib.suppress(OSError):  # an fd that cannot be read is no lifeline either
        os.read(fd, 1)
    # Not sys.exit: nothing that hangs in another thread or in an exit handler may keep an orphan alive.
    os._exit(ORPHANED)
