"""A timer rings once, not too early, and not if it was taken back."""

from __future__ import annotations

import asyncio
import time

import pytest

from parkway.core import timers


async def test_it_rings_once_and_not_too_early() -> None:
    rung: list[float] = []
    whens = [time.monotonic() + seconds for seconds in (0.0, 0.013, 0.04, 0.04)]
    for when in whens:
        timers.at(when, lambda when=when: rung.append(time.monotonic() - when))
    async with asyncio.timeout(10):
        while len(rung) < len(whens):  # noqa: ASYNC110 - what is waited for is a plain list
            await asyncio.sleep(0.005)
    await asyncio.sleep(0.05)
    assert len(rung) == len(whens)
    assert min(rung) >= 0


async def test_one_that_was_taken_back_does_not_ring() -> None:
    rung: list[str] = []
    when = time.monotonic() + 0.02
    first = timers.at(when, lambda: rung.append("first"))
    timers.at(when, lambda: rung.append("second"))
    first.cancel()
    first.cancel()
    await asyncio.sleep(0.1)
    assert rung == ["second"]


async def test_of_two_that_are_due_the_first_may_take_the_other_back() -> None:
    rung: list[int] = []
    both: list[timers.Timer] = []

    def ring(mine: int) -> None:
        rung.append(mine)
        both[1 - mine].cancel()

    when = time.monotonic()
    both += [timers.at(when, lambda: ring(0)), timers.at(when, lambda: ring(1))]
    await asyncio.sleep(0.1)
    assert len(rung) == 1


async def test_one_beyond_the_horizon_rings_at_its_time_and_can_be_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timers, "_HORIZON_S", 0.03)
    rung: list[float] = []
    when = time.monotonic() + 0.2
    timers.at(when, lambda: rung.append(time.monotonic()))
    other = timers.at(when, lambda: rung.append(0.0))
    await asyncio.sleep(0.1)
    assert rung == []
    other.cancel()
    await asyncio.sleep(0.2)
    assert len(rung) == 1
    assert rung[0] >= when


async def test_one_that_fails_does_not_keep_others_from_ringing() -> None:
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    rung: list[str] = []

    def fail() -> None:
        raise ValueError("broken")

    when = time.monotonic()
    for work in (fail, lambda: rung.append("other"), fail):
        timers.at(when, work)
    await asyncio.sleep(0.1)
    assert rung == ["other"]


def test_every_loop_has_timers_of_its_own() -> None:
    async def leaves_one_behind() -> None:
        timers.at(time.monotonic(), lambda: None)

    async def waits_for_one() -> None:
        rung = asyncio.Event()
        timers.at(time.monotonic(), rung.set)
        await asyncio.wait_for(rung.wait(), 10)

    asyncio.run(leaves_one_behind())
    asyncio.run(waits_for_one())
