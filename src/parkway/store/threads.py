"""Threads that do blocking work for coroutines."""

from __future__ import annotations

import asyncio
import os
import queue
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from parkway.core.errors import StoreUnavailable
from parkway.core.tasks import start_thread

T = TypeVar("T")

_NICE = 5
"""By how much the threads come after the event loop. More, and on a core that is never idle they would get less than
they need to write what a busy gateway logs."""


class Threads:
    """A fixed number of daemon threads, and a bounded number of jobs that may wait for one.

    On Linux they are nicer than the thread that started them: where both want one core, the event loop goes first. It
    had waited for the end of their slices, 3 ms and more.

    `concurrent.futures.ThreadPoolExecutor` would do but for two things: its queue has no bound, and the interpreter
    waits for its threads at exit, so that a database that hangs would keep a stopping process alive.
    """

    def __init__(self, name: str, *, size: int, waiting: int) -> None:
        self._name = name
        self._size = size
        self._waiting = waiting
        self._jobs: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._starting = threading.Lock()
        self._closed = False

    async def run(self, work: Callable[[], T], *, timeout_s: float) -> T:
        """The result of `work`, run on one of the threads.

        A job that has not begun when the caller gives up, or is cancelled, never begins; one that has begun runs on.

        Raises:
            TimeoutError: `work` did not end within `timeout_s`, the wait for a thread included.
            StoreUnavailable: Too many jobs wait already, or the threads are closed.
        """
        if self._closed:
            raise StoreUnavailable("The store is closed: this process is about to stop.", retry_after_s=1.0)
        if self._jobs.qsize() >= self._waiting:
            raise StoreUnavailable(f"{self._waiting} jobs wait for the store already; try again.", retry_after_s=1.0)
        self._start()
        future: Future[T] = Future()
        self._jobs.put((future, work))
        # Not asyncio.wait_for: before Python 3.12 it swallows a cancellation that comes together with the result.
        async with asyncio.timeout(timeout_s):
            return await asyncio.wrap_future(future)

    def close(self, *, timeout_s: float) -> None:
        """Takes no more jobs and waits up to `timeout_s` for those under way."""
        self._closed = True
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join(timeout_s / len(self._threads))

    def _start(self) -> None:
        with self._starting:
            for number in range(len(self._threads), self._size):
                self._threads.append(start_thread(self._work, name=f"{self._name}-{number}"))

    def _work(self) -> None:
        if sys.platform == "linux":  # elsewhere it is a whole process that is nice
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), os.getpriority(os.PRIO_PROCESS, 0) + _NICE)
        while (job := self._jobs.get()) is not None:
            future, work = job
            if not future.set_running_or_notify_cancel():
                continue
            try:
                result = work()
            except BaseException as error:  # noqa: BLE001 - whatever it is, it belongs to the coroutine that waits
                future.set_exception(error)
            else:
                future.set_result(result)
            job = future = work = result = None  # or the last job's data would live until the next one comes
