"""A second endpoint is asked when the first is late."""

from __future__ import annotations

import asyncio

import pytest

from parkway.router.latency import Percentile
from tests.router.conftest import NewRouter, until
from tests.router.test_router import ask, outstanding
from tests.router.upstreams import ANSWER, Exchange, answer, close_unanswered, hang, refusal, upstream

HEDGE = {"hedge": {"after_s": 0.02, "max_share": 1.0}}


async def test_the_second_answers_and_the_first_is_left(new_router: NewRouter) -> None:
    left = asyncio.Event()

    async def late(exchange: Exchange) -> None:
        await hang(exchange)
        left.set()

    async with upstream(late) as slow, upstream() as fast:
        router = await new_router(slow.endpoint("e1", weight=10_000), fast.endpoint("e2"), **HEDGE)
        assert await ask(router) == (200, ANSWER, "e2", 2)
        await asyncio.wait_for(left.wait(), 10)
        await until(lambda: outstanding(router) == 0)
        assert router.counts.of("hedges") == {"m": 1}
        assert router.counts.of("retries") == {}


async def test_a_first_that_answers_in_time_is_alone(new_router: NewRouter) -> None:
    async with upstream() as one, upstream() as two:
        router = await new_router(
            one.endpoint("e1", weight=10_000), two.endpoint("e2"), hedge={"after_s": 60, "max_share": 1.0}
        )
        assert await ask(router) == (200, ANSWER, "e1", 1)
        assert not two.requests


async def test_a_second_that_fails_does_not_end_the_first(new_router: NewRouter) -> None:
    asked = asyncio.Event()

    async def waits_for_the_other(exchange: Exchange) -> None:
        await asked.wait()
        await asyncio.sleep(0.02)
        await answer()(exchange)

    async def fails(exchange: Exchange) -> None:
        asked.set()
        await refusal(500, "internal_error")(exchange)

    for fault in (fails, lambda exchange: (asked.set(), close_unanswered(exchange))[1]):
        asked.clear()
        async with upstream(waits_for_the_other) as slow, upstream(fault) as bad:
            router = await new_router(slow.endpoint("e1", weight=10_000), bad.endpoint("e2"), **HEDGE)
            assert await ask(router) == (200, ANSWER, "e1", 2)
            await until(lambda router=router: outstanding(router) == 0)


async def test_hedges_are_a_share_of_the_requests(new_router: NewRouter) -> None:
    async def late(exchange: Exchange) -> None:
        await asyncio.sleep(0.05)
        await answer()(exchange)

    async with upstream(late) as one, upstream(late) as two:
        router = await new_router(one.endpoint("e1"), two.endpoint("e2"), hedge={"after_s": 0.005, "max_share": 0.25})
        await asyncio.gather(*[ask(router) for _ in range(40)])
        assert router.counts.of("hedges")["m"] == 10
        assert len(one.requests) + len(two.requests) == 50


async def test_a_caller_who_leaves_frees_both(new_router: NewRouter) -> None:
    async with upstream(hang) as one, upstream(hang) as two:
        router = await new_router(one.endpoint("e1"), two.endpoint("e2"), **HEDGE)
        waiting = asyncio.ensure_future(ask(router))
        await until(lambda: one.requests and two.requests)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await until(lambda: outstanding(router) == 0)


async def test_the_deadline_holds_for_both(new_router: NewRouter) -> None:
    async with upstream(hang) as one, upstream(hang) as two:
        router = await new_router(one.endpoint("e1"), two.endpoint("e2"), **HEDGE)
        with pytest.raises(Exception, match="deadline"):
            await ask(router, deadline_s=0.2)
        await until(lambda: outstanding(router) == 0)


def test_a_percentile_is_known_after_fifty() -> None:
    usual = Percentile(90)
    for number in range(49):
        usual.observe(number)
    assert usual.value is None
    usual.observe(49)
    assert usual.value == 45
    for _ in range(1024):
        usual.observe(7)
    assert usual.value == 7
