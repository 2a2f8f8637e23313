"""One child process, kept running: started, watched, restarted with back-off, stopped.

The states, and what moves between them:

    starting --announced--> ready --ended--> waiting --back-off over--> starting
        |                                                                   |
        +--ended with an exit code that says "never"--> given up            +-- stop() from anywhere --> stopped

A child that runs `once` has neither `waiting` nor a second start: however it ends by itself, it is given up.
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
from parkway.launch.announcement import Announcement
from parkway.launch.backoff import Backoff
from parkway.launch.log_file import LogFile

State = Literal["starting", "ready", "waiting", "given up", "stopped"]
Say = Callable[[str], None]
"""Tells the person at the terminal one line."""

NEVER = frozenset({ConfigurationError.exit_code, StartupError.exit_code})
"""Exit codes that starting again does not change: a wrong option or configuration, unusable files."""

_FROM_OUTSIDE = frozenset({0, -signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT})
"""Exit codes of a process that somebody ended: its last words have nothing to do with it."""

_KILL_GRACE_S = 5.0


@dataclass(frozen=True, slots=True)
class Program:
    """What to run.

    Args:
        name: As people read it: `engine park-mini`.
        announces: It prints `ready ADDRESS` on standard output once it serves. One that does not is taken to be ready
            as soon as it runs.
        start_timeout_s: It is killed, and started again, if it has not announced itself by then.
    """

    name: str
    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    pass_fds: tuple[int, ...] = ()
    announces: bool = True
    start_timeout_s: float = 600.0


@dataclass(frozen=True, slots=True)
class Ending:
    """How a process ended: its exit code (negative: the signal), and for how long it had been ready; None: never."""

    code: int
    ready_s: float | None

    def __str__(self) -> str:
        return f"stopped by signal {-self.code}" if self.code < 0 else f"ended with exit code {self.code}"


class Child:
    """Keeps one program running.

    Args:
        on_change: Called with each new state; with `ready` comes the announced address.
        on_trouble: Called with each line about what is wrong with it.
        once: It is not started again: however it ends by itself, it is given up.

    Attributes:
        settled: Set once it has been ready for the first time, or is given up.
        reason: Why it was given up, in its own words.
    """

    def __init__(
        self,
        program: Program,
        log: LogFile,
        say: Say,
        *,
        on_change: Callable[[State, str], None] | None = None,
        on_trouble: Callable[[bytes], None] = lambda _: None,
        backoff: Backoff | None = None,
        once: bool = False,
    ) -> None:
        self.program = program
        self.log = log
        self.state: State = "starting"
        self.reason = ""
        self.settled = asyncio.Event()
        self._say = say
        self._on_change = on_change
        self._on_trouble = on_trouble
        self._backoff = backoff or Backoff()
        self._once = once
        self._stopping = asyncio.Event()
        self._finished = asyncio.Event()
        self._finished.set()  # nothing runs yet
        self._process: asyncio.subprocess.Process | None = None
        self._ready_at: float | None = None

    @property
    def pid(self) -> int | None:
        """The process id, while there is a process."""
        return self._process.pid if self._process is not None else None

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
                proven = proven or self._proves(ending)
                if self._once or (ending.code in NEVER and not proven):
                    self._give_up(ending)
                    return
                failures = self._backoff.failures(failures, ending.ready_s or 0.0)
                await self._wait(ending, self._backoff.delay_s(failures))
        finally:
            if self.state != "given up":
                self._become("stopped")
            self._finished.set()

    async def stop(self, grace_s: float, number: signal.Signals = signal.SIGTERM) -> None:
        """Ends the program for good: asks it, and after `grace_s` seconds kills its whole process group.

        Args:
            number: The signal that asks.
        """
        self._stopping.set()
        self._signal(number)
        if await _within(grace_s, self._finished):
            return
        self._say(f"{self.program.name} did not stop within {grace_s:g} s and is killed")
        self.kill()
        if not await _within(_KILL_GRACE_S, self._finished):
            self._say(f"{self.program.name} (pid {self.pid}) is stuck in the kernel; it ends when that lets go of it")

    def kill(self) -> None:
        """Ends the program for good, at once."""
        self._stopping.set()
        if self._process is not None:
            _kill_group(self._process)

    def restart(self, why: str) -> None:
        """Kills the running process, which `run` then starts again.

        Args:
            why: What it does wrong, as the rest of a sentence.
        """
        if self._process is not None and not self._stopping.is_set():
            self._say(f"{self.program.name} {why} and is killed")
            _kill_group(self._process)

    async def _live(self) -> Ending:
        """One life of the program, from its start to its end."""
        self._ready_at = None
        self._become("starting")
        announcement = Announcement(self._ready if self.program.announces else lambda _: None, self._on_trouble)
        try:
            process = await self._spawn(announcement)
        except OSError as error:
            announcement.close()
            self._say(f"{self.program.name} could not be started: {error}")
            return Ending(code=1, ready_s=None)
        self._process = process
        deadline = asyncio.get_running_loop().call_later(self.program.start_timeout_s, self._too_late)
        try:
            if self._stopping.is_set():  # while it was being started
                self._signal(signal.SIGTERM)
            elif not self.program.announces:
                self._ready("")
            code = await process.wait()
        finally:
            # Also what the program itself left behind in its group, and also when this task is cancelled.
            _kill_group(process)
            deadline.cancel()
            announcement.close()
            self._process = None
        return Ending(code, None if self._ready_at is None else time.monotonic() - self._ready_at)

    async def _spawn(self, announcement: Announcement) -> asyncio.subprocess.Process:
        with contextlib.ExitStack() as ours:
            ours.callback(announcement.handed_over)
            log_fd = self.log.open()
            ours.callback(os.close, log_fd)
            return await asyncio.create_subprocess_exec(
                *self.program.argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=announcement.child_fd,
                stderr=log_fd,
                env={**os.environ, "PYTHONFAULTHANDLER": "1", **self.program.environment},
                pass_fds=self.program.pass_fds,
                start_new_session=True,  # Ctrl-C at the terminal reaches the supervisor alone, which then drains
            )

    def _proves(self, ending: Ending) -> bool:
        """Whether this life shows that the program can start: what does not announce itself has to live for a while."""
        needed_s = 0.0 if self.program.announces else self._backoff.most_s
        return ending.ready_s is not None and ending.ready_s >= needed_s

    def _too_late(self) -> None:
        if self.state == "starting" and self._process is not None:
            self.restart(f"is not ready after {self.program.start_timeout_s:g} s")

    def _ready(self, address: str) -> None:
        if not self._stopping.is_set():
            self._ready_at = time.monotonic()
            self._become("ready", address)
            self.settled.set()

    def _become(self, state: State, address: str = "") -> None:
        self.state = state
        if self._on_change is not None:
            self._on_change(state, address)

    def _give_up(self, ending: Ending) -> None:
        lines = [] if ending.code in _FROM_OUTSIDE else self.log.tail()
        errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
        said = "; ".join(errors or lines[-1:])
        if self._once:
            self.reason = f"{ending}: {said}" if said and ending.code not in NEVER else said or str(ending)
            self._say(f"{self.program.name} {ending}{f': {said}' if said else ''}")
        else:
            self.reason = said or "it said nothing"
            self._say(f"{self.program.name} cannot start and is given up: {self.reason}")
        self._become("given up")
        self.settled.set()

    async def _wait(self, ending: Ending, delay_s: float) -> None:
        self._become("waiting")
        self._say(f"{self.program.name} {ending}; again in {delay_s:g} s")
        if ending.code not in _FROM_OUTSIDE:
            for line in self.log.tail():
                self._say(f"    {line}")
        await _within(delay_s, self._stopping)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)


async def _within(seconds: float, event: asyncio.Event) -> bool:
    """Whether `event` is set, now or within so many seconds."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
    return event.is_set()


def _kill_group(process: asyncio.subprocess.Process) -> None:
    """Kills what is left of the session that the process leads."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
