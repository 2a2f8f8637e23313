"""A deadline ends what runs past it, as `asyncio.timeout` does, and never hides another cancellation."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest

from parkway.core.deadline import Deadline


async def test_what_is_over_in_time_is_left_alone() -> None:
    with Deadline.after(0.01):
        pass
    await asyncio.sleep(0.05)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_what_takes_too_long_ends_in_a_time_out() -> None:
    began = time.monotonic()
    with pytest.raises(TimeoutError), Deadline.after(0.01):
        await asyncio.sleep(60)
    assert time.monotonic() - began >= 0.01
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_one_that_has_passed_already_ends_the_first_wait() -> None:
    with pytest.raises(TimeoutError), Deadline(time.monotonic() - 1):
        await asyncio.sleep(60)


@pytest.mark.parametrize(("inner_s", "outer_s", "who"), [(0.01, 60, "inner"), (60, 0.01, "outer")])
async def test_of_nested_ones_the_one_that_has_passed_is_told(inner_s: float, outer_s: float, who: str) -> None:
    told = ""
    try:
        with Deadline.after(outer_s):
            try:
                with Deadline.after(inner_s):
                    await asyncio.sleep(60)
            except TimeoutError:
                told = "inner"
    except TimeoutError:
        told = "outer"
    assert told == who


async def test_both_of_nested_ones_at_once_end_the_outer_one() -> None:
    told: list[str] = []
    when = time.monotonic() + 0.01
    try:
        with Deadline(when):
            try:
                with Deadline(when):
                    await asyncio.sleep(60)
            except TimeoutError:
                told.append("inner")
                await asyncio.sleep(60)
    except TimeoutError:
        told.append("outer")
    assert told[-1] == "outer"


async def test_it_and_the_standard_one_nest_in_either_order() -> None:
    with pytest.raises(TimeoutError), Deadline.after(60):
        async with asyncio.timeout(0.01):
            await asyncio.sleep(60)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(60):
            with Deadline.after(0.01):
                await asyncio.sleep(60)


async def _cancelled(begin: Callable[[], AbstractContextManager[Any]]) -> asyncio.Task[None]:
    async def work() -> None:
        with begin():
            await asyncio.sleep(60)

    task = asyncio.ensure_future(work())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    return task


async def test_a_cancellation_from_elsewhere_goes_through() -> None:
    task = await _cancelled(lambda: Deadline.after(60))
    assert task.cancelled()


async def test_a_cancellation_that_comes_together_with_the_deadline_goes_through() -> None:
    async def work() -> None:
        with Deadline.after(0.0):
            time.sleep(0.03)  # noqa: ASYNC251 - so that both come before the task runs again
            await asyncio.sleep(60)

    task = asyncio.ensure_future(work())
    asyncio.get_running_loop().call_later(0.01, task.cancel)
    asyncio.get_running_loop().call_later(0.02, task.cancel)
    await asyncio.wait([task])
    assert task.cancelled()


async def test_a_failure_is_not_turned_into_a_time_out() -> None:
    with pytest.raises(ValueError, match="broken"), Deadline.after(0.0):
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise ValueError("broken") from None
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
