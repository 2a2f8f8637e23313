"""A deadline for a piece of work, for what is over before it, nearly always."""

from __future__ import annotations

import asyncio
import time
from types import TracebackType

from parkway.core.timers import Timer, at


class Deadline:
    """Cancels what runs in its context when `when` has come, in seconds of `time.monotonic`, and raises TimeoutError.

    It is `asyncio.timeout_at` at a fraction of the cost, and with the same rules: whoever else cancels the task at the
    same moment is heard, and deadlines may be nested. It may be late by `timers.STEP_S`.
    """

    __slots__ = ("_cancelling", "_passed", "_task", "_timer", "_when")

    def __init__(self, when: float) -> None:
        self._when = when
        self._passed = False

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """One that begins to run now."""
        return cls(time.monotonic() + seconds)

    def __enter__(self) -> Deadline:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a deadline is for what runs in a task")
        self._task: asyncio.Task[object] = task
        self._cancelling = task.cancelling()
        self._timer: Timer = at(self._when, self._pass)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        if self._passed and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def _pass(self) -> None:
        self._passed = True
        self._task.cancel()
