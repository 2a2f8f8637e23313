"""One child process, kept running: started, watched, restarted with back-off, stopped.

The states, and what moves between them:

    starting --announced--> ready --ended--> waiting --back-off over--> starting
        |                                                                   |
        +--ended with an exit code that says "never"--> given up            +-- stop() from anywhere --> stopped
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from parkway.core.errors import ConfigurationError, StartupError
from parkway.launch.backoff import Backoff
from parkway.launch.log_file import LogFile

State = Literal["starting", "ready", "waiting", "given up", "stopped"]
Say = Callable[[str], None]
"""Tells the person at the terminal one line."""

NEVER = frozenset({ConfigurationError.exit_code, StartupError.exit_code})
"""Exit codes that starting again does not change: a wrong option or configuration, unusable files."""

_ANNOUNCEMENT = b"ready "


@dataclass(frozen=True, slots=True)
class Program:
    """What to run.

    Args:
        name: As people read it: `engine park-mini`.
        announces: It prints `ready ADDRESS` on standard output once it serves. One that does not is taken to be ready
            as soon as it runs.
        start_timeout_s: It is stopped, and started again, if it has not announced itself by then.
    """

    name: str
    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    pass_fds: tuple[int, ...] = ()
    announces: bool = True
    start_timeout_s: float = 600.0


@dataclass(frozen=True, slots=True)
class Ending:
    """How a process ended: its exit code (negative: the signal), after how long, and whether it had been ready."""

    code: int
    ran_s: float
    was_ready: bool

    def __str__(self) -> str:
        if self.code < 0:
            return f"stopped by signal {-self.code}"
        return f"ended with exit code {self.code}"


class Child:
    """Keeps one program running.

    Args:
        on_change: Called with each new state; with `ready` comes the announced address.
    """

    def __init__(
        self,
        program: Program,
        log: LogFile,
        say: Say,
        *,
        on_change: Callable[[State, str], None] | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        self.program = program
        self.state: State = "starting"
        self.pid: int | None = None
        self.reason = ""
        self.settled = asyncio.Event()
        """Set once it has been ready for the first time, or is given up."""
        self.log = log
        self._say = say
        self._on_change = on_change
        self._backoff = backoff or Backoff()
        self._stopping = asyncio.Event()
        self._finished = asyncio.Event()
        self._finished.set()  # nothing runs yet
        self._process: asyncio.subprocess.Process | None = None

    async def run(self) -> None:
        """Runs the program again and again until `stop`, or until it is clear that it can never start."""
        self._finished.clear()
        failures = 0
        proven = False
        try:
            while not self._stopping.is_set():
                ending = await self._live()
                if self._stopping.is_set():
                    return
                proven = proven or ending.was_ready
                if ending.code in NEVER and not proven:
                    self._give_up()
                    return
                failures = self._backoff.failures(failures, ending.ran_s)
                await self._wait(ending, self._backoff.delay_s(failures))
        finally:
            if self.state != "given up":
                self._become("stopped")
            self._finished.set()

    async def stop(self, grace_s: float) -> None:
        """Ends the program for good: asks it, and after `grace_s` seconds kills its whole process group."""
        self._stopping.set()
        self._signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self._finished.wait(), grace_s)
        except TimeoutError:
            self._say(f"{self.program.name} did not stop within {grace_s:g} s and is killed")
            self.kill()
            await self._finished.wait()

    def kill(self) -> None:
        """Ends the program for good, at once."""
        self._stopping.set()
        if self._process is not None:
            _kill_group(self._process)

    async def _live(self) -> Ending:
        """One life of the program, from its start to its end."""
        self._become("starting")
        began = time.monotonic()
        announcement = _Announcement(self._ready)
        try:
            process = await self._spawn(announcement)
        except OSError as error:
            announcement.close()
            self._say(f"{self.program.name} could not be started: {error}")
            return Ending(code=1, ran_s=0.0, was_ready=False)
        self._process, self.pid = process, process.pid
        deadline = asyncio.get_running_loop().call_later(self.program.start_timeout_s, self._too_late)
        try:
            if self._stopping.is_set():
                self._signal(signal.SIGTERM)
            if not self.program.announces:
                self._ready("")
            code = await process.wait()
        finally:
            # Also what the program itself left behind in its group, and also when this task is cancelled.
            _kill_group(process)
            deadline.cancel()
            announcement.close()
            self._process = self.pid = None
        ran_s = time.monotonic() - began
        was_ready = self.state == "ready" and (self.program.announces or ran_s >= self._backoff.most_s)
        return Ending(code, ran_s, was_ready)

    async def _spawn(self, announcement: _Announcement) -> asyncio.subprocess.Process:
        log_fd = self.log.open()
        try:
            return await asyncio.create_subprocess_exec(
                *self.program.argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=announcement.child_fd,
                stderr=log_fd,
                env={**os.environ, "PYTHONFAULTHANDLER": "1", **self.program.environment},
                pass_fds=self.program.pass_fds,
                start_new_session=True,  # Ctrl-C at the terminal reaches the supervisor alone, which then drains
            )
        finally:
            os.close(log_fd)
            announcement.started()

    def _too_late(self) -> None:
        if self.state == "starting" and self._process is not None:
            self._say(f"{self.program.name} is not ready after {self.program.start_timeout_s:g} s and is killed")
            _kill_group(self._process)

    def _ready(self, address: str) -> None:
        if not self._stopping.is_set():
            self._become("ready", address)
            self.settled.set()

    def _become(self, state: State, address: str = "") -> None:
        self.state = state
        if self._on_change is not None:
            self._on_change(state, address)

    def _give_up(self) -> None:
        lines = self.log.tail()
        errors = [line for line in lines if line.lower().startswith("error:")]
        self.reason = (errors or lines or ["it said nothing"])[-1].removeprefix("error: ")
        self._become("given up")
        self.settled.set()
        self._say(f"{self.program.name} cannot start and is given up: {self.reason}")

    async def _wait(self, ending: Ending, delay_s: float) -> None:
        self._become("waiting")
        self._say(f"{self.program.name} {ending}; again in {delay_s:g} s")
        for line in self.log.tail():
            self._say(f"    {line}")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), delay_s)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)


class _Announcement:
    """Reads a child's standard output up to its `ready ADDRESS` line; drains the rest, so that it never blocks."""

    def __init__(self, ready: Callable[[str], None]) -> None:
        self._ready = ready
        self._seen = False
        self._line = b""
        self._fd, self.child_fd = os.pipe()
        os.set_blocking(self._fd, False)
        asyncio.get_running_loop().add_reader(self._fd, self._read)

    def started(self) -> None:
        """The child has its copy of the pipe's other end: ours is closed, so that its end is seen."""
        os.close(self.child_fd)

    def close(self) -> None:
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
        self._line = rest[-4_096:]
        for line in lines:
            if line.startswith(_ANNOUNCEMENT) and not self._seen:
                self._seen = True
                self._ready(line.removeprefix(_ANNOUNCEMENT).decode(errors="replace").strip())


def _kill_group(process: asyncio.subprocess.Process) -> None:
    """Kills what is left of the session that the process leads."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
