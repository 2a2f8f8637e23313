"""One child process, with real programs: announced, restarted, given up, stopped."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from parkway.core.tasks import Tasks
from parkway.launch.backoff import Backoff
from parkway.launch.child import Child, Program, State
from parkway.launch.log_file import LogFile

QUICK = Backoff(first_s=0.01, most_s=0.05)
SERVES = "import time; print('ready http://127.0.0.1:1', flush=True); time.sleep(600)"


class Stage:
    """Starts children that run a piece of Python, and keeps what they and their supervision said."""

    def __init__(self, folder: Path, tasks: Tasks) -> None:
        self.told: list[str] = []
        self.trouble: list[bytes] = []
        self.ready: list[str] = []
        self.downs = 0
        self.runs: list[asyncio.Task[None]] = []
        self._children: list[Child] = []
        self._folder = folder
        self._tasks = tasks

    def start(self, code: str, *, start_timeout_s: float = 600.0, once: bool = False) -> Child:
        return self.run(Program("probe", (sys.executable, "-c", code), start_timeout_s=start_timeout_s), once=once)

    def run(self, program: Program, *, once: bool = False) -> Child:
        log = LogFile(self._folder, f"probe-{len(self._children)}")
        child = Child(
            program, log, self.told.append, on_change=self._changed, on_trouble=self.trouble.append, backoff=QUICK,
            once=once,
        )  # fmt: skip
        self._children.append(child)
        self.runs.append(self._tasks.start(child.run(), name="probe"))
        return child

    async def close(self) -> None:
        for child in self._children:
            await child.stop(5.0)

    def _changed(self, state: State, address: str) -> None:
        if state == "ready":
            self.ready.append(address)
        elif state == "waiting":
            self.downs += 1


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with Tasks("test") as tasks:
        stage = Stage(tmp_path, tasks)
        yield stage
        await stage.close()


async def _until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in other processes
            await asyncio.sleep(0.01)


async def test_announces_its_address(stage: Stage) -> None:
    child = stage.start("print('loading'); " + SERVES)
    await asyncio.wait_for(child.settled.wait(), 30)
    assert child.state == "ready"
    assert stage.ready == ["http://127.0.0.1:1"]


async def test_what_it_says_is_wrong_is_heard_before_and_after_it_is_ready(stage: Stage) -> None:
    before = "import time; print('trouble 1'); print('x' * 100_000); print('ready no trouble')"
    after = "print('trouble 2', end='', flush=True); time.sleep(0.1); print('3\\nready again', flush=True)"
    stage.start(f"{before}; {after}; time.sleep(600)")
    await _until(lambda: len(stage.trouble) == 2)
    assert (stage.trouble, stage.ready) == ([b"1", b"23"], ["no trouble"])


async def test_killed_is_started_again_and_told_in_one_line(stage: Stage) -> None:
    child = stage.start(SERVES)
    await asyncio.wait_for(child.settled.wait(), 30)
    first = child.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    await _until(lambda: len(stage.ready) == 2)
    assert child.pid not in (None, first)
    assert stage.downs == 1
    assert stage.told == ["probe stopped by signal 9; again in 0.01 s"]


async def test_its_last_words_are_quoted(stage: Stage) -> None:
    stage.start("import sys; sys.exit('the disk is on fire')")
    await _until(lambda: len(stage.told) >= 2)
    assert stage.told[0] == "probe ended with exit code 1; again in 0.01 s"
    assert stage.told[1] == "    the disk is on fire"


@pytest.mark.parametrize("code", [2, 3])
async def test_what_can_never_start_is_given_up_with_its_reason(stage: Stage, code: int) -> None:
    child = stage.start(f"import sys; print('error: no config.json in /m', file=sys.stderr); sys.exit({code})")
    await asyncio.wait_for(child.settled.wait(), 30)
    assert child.state == "given up"
    assert child.reason == "no config.json in /m"
    assert stage.told == ["probe cannot start and is given up: no config.json in /m"]
    await asyncio.wait_for(stage.runs[0], 30)


async def test_the_same_exit_code_after_having_served_is_tried_again(stage: Stage) -> None:
    stage.start(
        "import sys; print('ready http://x', flush=True); sys.stdin.read(); import time; time.sleep(0.2); sys.exit(3)"
    )
    await _until(lambda: len(stage.ready) >= 2)


async def test_one_that_never_announces_itself_is_killed_and_tried_again(stage: Stage) -> None:
    child = stage.start("import time; time.sleep(600)", start_timeout_s=0.2)
    await _until(lambda: stage.downs >= 2)
    assert not child.settled.is_set()
    assert stage.told[0] == "probe is not ready after 0.2 s and is killed"


async def test_a_program_that_cannot_be_executed(stage: Stage, tmp_path: Path) -> None:
    stage.run(Program("ghost", (str(tmp_path / "nothing"),)))
    await _until(lambda: len(stage.told) >= 2)
    assert stage.told[0].startswith("ghost could not be started: [Errno 2]")


async def test_stop_lets_it_finish_its_work(stage: Stage, tmp_path: Path) -> None:
    mark = tmp_path / "finished"
    child = stage.start(
        "import signal, sys, time, pathlib\n"
        f"signal.signal(signal.SIGTERM, lambda *_: (pathlib.Path({str(mark)!r}).touch(), sys.exit(0)))\n" + SERVES
    )
    await asyncio.wait_for(child.settled.wait(), 30)
    await child.stop(30.0)
    assert mark.exists()
    assert child.state == "stopped"
    assert stage.told == []


async def test_stop_kills_what_does_not_listen_with_all_that_it_started(stage: Stage, tmp_path: Path) -> None:
    mark = tmp_path / "grandchild"
    child = stage.start(
        "import signal, subprocess, sys, pathlib\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "grandchild = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"pathlib.Path({str(mark)!r}).write_text(str(grandchild.pid))\n" + SERVES
    )
    await asyncio.wait_for(child.settled.wait(), 30)
    await child.stop(0.2)
    assert stage.told == ["probe did not stop within 0.2 s and is killed"]
    await _until(lambda: not _runs(int(mark.read_text())))


async def test_stop_during_the_wait_between_two_starts(stage: Stage) -> None:
    child = stage.start("raise SystemExit(1)")
    await _until(lambda: child.state == "waiting")
    await child.stop(5.0)
    assert child.state == "stopped"


async def test_a_talkative_child_is_not_blocked_by_its_full_pipe(stage: Stage, tmp_path: Path) -> None:
    mark = tmp_path / "said it all"
    stage.start(
        "import pathlib, time\n"
        "print('x' * 5_000_000); print('ready http://127.0.0.1:2', flush=True); print('y' * 5_000_000, flush=True)\n"
        f"pathlib.Path({str(mark)!r}).touch(); time.sleep(600)"
    )
    await _until(mark.exists)
    assert stage.ready == ["http://127.0.0.1:2"]


def _runs(pid: int) -> bool:
    """Whether the process exists and is not merely waiting to be reaped."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


async def test_one_that_runs_once_is_given_up_however_it_ends(stage: Stage) -> None:
    child = stage.start(SERVES, once=True)
    await asyncio.wait_for(child.settled.wait(), 30)
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    await _until(lambda: child.state == "given up")
    assert child.reason == "stopped by signal 9"
    assert stage.told == ["probe stopped by signal 9"]
    await asyncio.sleep(0.1)
    assert stage.ready == ["http://127.0.0.1:1"]


async def test_one_that_runs_once_and_crashes_says_why(stage: Stage) -> None:
    child = stage.start("import sys; sys.exit('the disk is on fire')", once=True)
    await asyncio.wait_for(child.settled.wait(), 30)
    assert child.reason == "ended with exit code 1: the disk is on fire"
    assert stage.downs == 0
