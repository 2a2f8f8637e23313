"""Timers for what is over before they ring, nearly always: to set one and to take it back costs next to nothing.

Source: Varghese, Lauck, "Hashed and Hierarchical Timing Wheels", 1987 (scheme 4).
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from contextvars import Context

STEP_S = 0.02
"""A timer rings by so much too late at the most, on a loop that keeps up, and never too early."""

_STEPS_PER_S = 1 / STEP_S

_HORIZON_S = 1.0  # a timer that is set for later is looked at again then: this bounds what empty steps take


class Timer:
    """One that was set, by `at`."""

    __slots__ = ("step", "when", "work")

    def __init__(self, when: float, work: Callable[[], object], step: set[Timer]) -> None:
        self.when = when
        self.work = work
        self.step = step

    def cancel(self) -> None:
        """Takes it back. One that has rung may be taken back too."""
        self.step.discard(self)


class _Wheel:
    """The timers of one event loop, by the step in which they ring. It turns only while there are any."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._steps: dict[int, set[Timer]] = {}
        self._turns = False
        self._context = Context()  # a timer is nobody's: it must not run as the request that was the first to set one

    def set(self, when: float, work: Callable[[], object]) -> Timer:
        timer = Timer(when, work, step := self._step(when))
        step.add(timer)
        return timer

    def _step(self, when: float) -> set[Timer]:
        horizon = time.monotonic() + _HORIZON_S
        number = int((when if when < horizon else horizon) * _STEPS_PER_S) + 1
        step = self._steps.get(number)
        if step is None:
            step = self._steps[number] = set()
            if not self._turns:
                self._turns = True
                self.loop.call_later(STEP_S, self._turn, context=self._context)
        return step

    def _turn(self) -> None:
        now = time.monotonic()
        reached = int(now * _STEPS_PER_S)
        for number in [number for number in self._steps if number <= reached]:
            for timer in self._steps.pop(number):
                if timer.when <= now:
                    self.loop.call_soon(self._ring, timer)
                else:
                    timer.step = self._step(timer.when)
                    timer.step.add(timer)
        self._turns = bool(self._steps)
        if self._turns:
            self.loop.call_later(STEP_S, self._turn, context=self._context)

    def _ring(self, timer: Timer) -> None:
        if timer in timer.step:  # nobody has taken it back in the meantime
            timer.step.discard(timer)
            timer.work()


class _Here(threading.local):
    """A thread runs one event loop at a time."""

    wheel: _Wheel | None = None


_here = _Here()


def at(when: float, work: Callable[[], object]) -> Timer:
    """Calls `work` on the running event loop, once `when` has come, in seconds of `time.monotonic`."""
    loop = asyncio.get_running_loop()
    wheel = _here.wheel
    if wheel is None or wheel.loop is not loop:
        wheel = _here.wheel = _Wheel(loop)
    return wheel.set(when, work)
