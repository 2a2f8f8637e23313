"""Starting asyncio tasks and threads: named, supervised, cancelled together.

A bare `asyncio.create_task` may be garbage-collected while it runs and loses its exception; nothing in Parkway
calls it except this module.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from types import TracebackType
from typing import Any, TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")

_LONGEST_SLEEP_S = 1.0


class Tasks:
    """The background tasks of one owner. Leaving the context cancels what still runs and waits for it."""

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, T], *, name: str) -> asyncio.Task[T]:
        """Runs `work` under `owner/name`. If it fails, the failure is logged at once."""
        task = asyncio.get_running_loop().create_task(work, name=f"{self._owner}/{name}")
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def every(
        self, seconds: float | Callable[[], float], work: Callable[[], Awaitable[object]], *, name: str
    ) -> asyncio.Task[None]:
        """Runs `work` again and again, `seconds` after the last run ended. A run that fails is logged.

        Args:
            seconds: Or who says how many: asked again and again, so that a shorter time is in force within a second.
        """

        async def loop() -> None:
            while True:
                try:
                    await work()
                except Exception:  # one failed round must not end the rounds that follow
                    log.exception("%s/%s failed; it goes on with the next round", self._owner, name)
                if callable(seconds):
                    await _pass(seconds)
                else:
                    await asyncio.sleep(seconds)

        return self.start(loop(), name=name)

    async def close(self) -> None:
        """Cancels everything that still runs and waits until it has ended."""
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def __aenter__(self) -> Tasks:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("task %s failed", task.get_name(), exc_info=error)


async def _pass(seconds: Callable[[], float]) -> None:
    """Sleeps for as long as `seconds` says, whatever it says meanwhile."""
    began = time.monotonic()
    while (left_s := began + seconds() - time.monotonic()) > 0:  # noqa: ASYNC110 - it is a number that changes
        await asyncio.sleep(min(left_s, _LONGEST_SLEEP_S))


def start_thread(work: Callable[[], object], *, name: str) -> threading.Thread:
    """Starts a daemon thread called `name`: it never keeps a stopping process alive."""
    thread = threading.Thread(target=work, name=name, daemon=True)
    thread.start()
    return thread
