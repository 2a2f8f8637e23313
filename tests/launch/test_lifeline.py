"""The lifeline: whatever ends a parent, its children end too."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from parkway.launch.lifeline import ORPHANED

CHILD = """
import sys, time
from parkway.launch.lifeline import hold
hold(int(sys.argv[1]))
{extra}
print("holds", flush=True)
while True:
    {busy}
"""

PARENT = """
import subprocess, sys, time
from parkway.launch.lifeline import Lifeline
lifeline = Lifeline()
child = subprocess.Popen([sys.executable, "-c", sys.argv[1], str(lifeline.child_fd)], pass_fds=(lifeline.child_fd,),
                         start_new_session=True, stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
{then}
"""


def _start(then: str, *, busy: str = "time.sleep(600)", extra: str = "") -> tuple[subprocess.Popen[bytes], int]:
    """A parent whose child holds the lifeline; the parent's process and the child's id."""
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT.format(then=then), CHILD.format(busy=busy, extra=extra)], stdout=subprocess.PIPE
    )
    assert parent.stdout is not None
    return parent, int(parent.stdout.readline())


def _gone(pid: int) -> bool:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


def test_a_killed_parent_takes_its_child_with_it() -> None:
    parent, child = _start("time.sleep(600)")
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait(30)
    assert _gone(child)


def test_a_parent_that_simply_ends_does_too() -> None:
    parent, child = _start("")
    parent.wait(30)
    assert _gone(child)


def test_a_child_that_is_busy_and_ignores_signals_is_no_exception() -> None:
    extra = "import signal; [signal.signal(n, signal.SIG_IGN) for n in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)]"
    parent, child = _start("time.sleep(600)", busy="pass", extra=extra)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait(30)
    assert _gone(child)


@pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel of Linux")
def test_the_pipe_alone_is_enough() -> None:
    """Where the kernel's own signal does not exist, or was lost with the thread that forked."""
    extra = "import ctypes; ctypes.CDLL(None).prctl(1, 0, 0, 0, 0)"
    parent, child = _start("time.sleep(600)", extra=extra)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait(30)
    assert _gone(child)


def test_a_child_that_starts_after_its_parent_has_gone_ends_at_once() -> None:
    reading, writing = os.pipe()
    os.close(writing)
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD.format(busy="time.sleep(600)", extra=""), str(reading)], pass_fds=(reading,)
    )
    os.close(reading)
    assert child.wait(30) == ORPHANED
