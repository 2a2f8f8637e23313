"""Tasks are named, a failure is heard, closing leaves nothing behind."""

import asyncio
import logging

import pytest

from parkway.core.tasks import Tasks


async def test_leaving_cancels_what_runs_and_waits_for_it() -> None:
    ended: list[str] = []

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)
            ended.append("cleaned up")

    async with Tasks("test") as tasks:
        task = tasks.start(work(), name="work")
        await asyncio.sleep(0)
        assert task.get_name() == "test/work"
    assert ended == ["cleaned up"]


async def test_a_failure_is_logged_with_the_name(caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> None:
        raise ValueError("broken")

    async with Tasks("test") as tasks:
        with caplog.at_level(logging.ERROR):
            tasks.start(fail(), name="fail")
            await asyncio.sleep(0.01)
    assert "test/fail" in caplog.text
    assert "broken" in caplog.text


async def test_a_round_that_fails_does_not_end_the_rounds() -> None:
    rounds = 0
    enough = asyncio.Event()

    async def work() -> None:
        nonlocal rounds
        rounds += 1
        if rounds == 3:
            enough.set()
        raise ValueError("broken")

    async with Tasks("test") as tasks:
        tasks.every(0.001, work, name="rounds")
        await asyncio.wait_for(enough.wait(), 10)
