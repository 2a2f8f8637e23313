"""Jobs on threads: bounded, given up, cancelled."""

from __future__ import annotations

import asyncio
import os
import sys
import threading

import pytest

from parkway.store.threads import Threads


async def test_a_job_that_has_not_begun_never_begins_once_its_caller_left() -> None:
    threads = Threads("test", size=1, waiting=4)
    free, ran = threading.Event(), threading.Event()
    first = asyncio.ensure_future(threads.run(lambda: free.wait(10), timeout_s=10))
    await asyncio.sleep(0)
    with pytest.raises(TimeoutError):
        await threads.run(ran.set, timeout_s=0.02)
    free.set()
    assert await first
    await threads.run(lambda: None, timeout_s=10)
    assert not ran.is_set()
    threads.close(timeout_s=5)


async def test_a_cancellation_that_comes_with_the_result_is_not_lost() -> None:
    threads = Threads("test", size=1, waiting=4)
    rounds = 0
    over = False

    async def loop() -> None:
        nonlocal rounds
        while not over:
            await threads.run(lambda: None, timeout_s=10)
            rounds += 1

    for _ in range(200):
        task = asyncio.ensure_future(loop())
        await asyncio.sleep(0.0005)
        task.cancel()
        await asyncio.wait([task], timeout=5)
        over = not task.cancelled()  # or a loop that cannot be cancelled would hold the test up for ever
        assert task.cancelled()
    assert rounds > 200
    threads.close(timeout_s=5)


async def test_a_failure_of_any_kind_reaches_the_caller_and_the_thread_lives_on() -> None:
    threads = Threads("test", size=1, waiting=4)

    def leave() -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        await threads.run(leave, timeout_s=10)
    assert await threads.run(lambda: 1, timeout_s=10) == 1
    threads.close(timeout_s=5)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a whole process has one priority")
async def test_the_event_loop_goes_first() -> None:
    threads = Threads("test", size=1, waiting=4)
    mine = os.getpriority(os.PRIO_PROCESS, 0)
    assert await threads.run(lambda: os.getpriority(os.PRIO_PROCESS, threading.get_native_id()), timeout_s=10) > mine
    assert os.getpriority(os.PRIO_PROCESS, 0) == mine
    threads.close(timeout_s=5)
