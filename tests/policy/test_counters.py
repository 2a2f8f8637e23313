"""Counters, in memory and in Redis: one suite for both, and what only one of them has."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
import redis

from parkway.core.errors import StoreUnavailable
from parkway.core.tasks import Tasks
from parkway.policy.counters import Counters, Grant, MemoryCounters, Refusal
from parkway.policy.periods import DAY_MS, end_of, start_of
from parkway.policy.rule import Charge, Form, Measure, Rule
from parkway.policy.shared_counters import SharedCounters
from parkway.store.redis import RedisConfig, connect
from tests.servers import Redis

Open = Callable[[], AbstractAsyncContextManager[SharedCounters]]


def rate(per_s: float, burst: float, measure: Measure = "requests") -> Rule:
    return Rule(name=f"key.{measure}.rate", kind="key", measure=measure, form=Form.RATE, limit=burst, per_s=per_s)


def window(limit: float, measure: Measure = "tokens", *, period: str = "day", hard: bool = True) -> Rule:
    name = f"budget.key.{period}.{measure}"
    return Rule(
        name=name, kind="key", measure=measure, form=Form.WINDOW, limit=limit, period=period, budget=True, hard=hard
    )  # pyright: ignore[reportArgumentType]


def slots(limit: int) -> Rule:
    return Rule(name="key.concurrency", kind="key", measure="concurrency", form=Form.SLOTS, limit=limit)


LEASES = itertools.count(1_000_000)
SLOW = 1e-4  # of a rate that gives nothing back while a test runs


@pytest.fixture
def shared(redis_server: Redis) -> Open:
    """Opens counters on a Redis that has forgotten everything; several are several processes to it."""
    config = RedisConfig(url=redis_server.url, timeout_s=5.0)
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()

    @asynccontextmanager
    async def opened() -> AsyncIterator[SharedCounters]:
        client = connect(config)
        assert client is not None
        counters = SharedCounters(client, prefix=config.prefix, timeout_s=config.timeout_s)
        async with Tasks("test") as tasks:
            counters.start(tasks)
            yield counters
            await counters.close()
        await client.aclose()

    return opened


@pytest.fixture(params=["memory", "redis"])
async def counters(request: pytest.FixtureRequest) -> AsyncIterator[Counters]:
    if request.param == "memory":
        yield MemoryCounters()
        return
    opened: Open = request.getfixturevalue("shared")
    async with opened() as found:
        yield found


async def takes(counters: Counters, *charges: Charge, lease: int | None = None) -> Grant | Refusal:
    return await counters.take(charges, next(LEASES) if lease is None else lease, 60.0)


async def granted(counters: Counters, *charges: Charge) -> Grant:
    grant = await takes(counters, *charges)
    assert isinstance(grant, Grant), grant
    return grant


async def refusal(counters: Counters, *charges: Charge) -> Refusal:
    found = await takes(counters, *charges)
    assert isinstance(found, Refusal), found
    return found


class TestBoth:
    async def test_a_rate_lets_its_burst_through_and_then_one_after_the_wait_that_it_tells(
        self, counters: Counters
    ) -> None:
        rule = rate(5.0, 3)
        for left in (2, 1, 0):
            grant = await granted(counters, Charge(rule, "a", 1))
            assert grant.standings[0].used == pytest.approx(3 - left, abs=0.9)
        refused = await refusal(counters, Charge(rule, "a", 1))
        assert refused.wait_s is not None
        assert 0 < refused.wait_s <= 0.2
        await granted(counters, Charge(rule, "b", 1))  # others are not touched
        await asyncio.sleep(refused.wait_s + 0.001)  # Redis has a clock of its own
        await granted(counters, Charge(rule, "a", 1))

    async def test_all_or_nothing(self, counters: Counters) -> None:
        wide, narrow, daily, places = rate(SLOW, 10), rate(SLOW, 1, "tokens"), window(100), slots(1)
        both = [Charge(wide, "a", 1), Charge(daily, "a", 50), Charge(places, "a", 1), Charge(narrow, "a", 1)]
        first = await granted(counters, *both)
        assert (await refusal(counters, *both)).charge.rule in (places, narrow)
        counters.settle(first, [1, 0, 1, 1])
        assert (await refusal(counters, *both)).charge.rule is narrow  # the rest had room, and gave nothing
        for _ in range(9):
            await granted(counters, Charge(wide, "a", 1))
        await refusal(counters, Charge(wide, "a", 1))
        await granted(counters, Charge(daily, "a", 100), Charge(places, "a", 1))

    async def test_of_several_refusals_the_longest_wait_is_told(self, counters: Counters) -> None:
        soon, late = rate(1.0, 1), rate(0.1, 1, "tokens")
        await granted(counters, Charge(soon, "a", 1), Charge(late, "a", 1))
        for charges in ([Charge(soon, "a", 1), Charge(late, "a", 1)], [Charge(late, "a", 1), Charge(soon, "a", 1)]):
            refused = await refusal(counters, *charges)
            assert refused.charge.rule is late
            assert refused.wait_s == pytest.approx(10, abs=1)

    async def test_what_can_never_pass_has_no_wait(self, counters: Counters) -> None:
        assert (await refusal(counters, Charge(rate(1.0, 5, "tokens"), "a", 6))).wait_s is None
        assert (await refusal(counters, Charge(window(5), "a", 6))).wait_s is None

    async def test_a_rate_gets_back_what_was_not_used_and_runs_into_debt_for_more(self, counters: Counters) -> None:
        rule = rate(SLOW, 100, "tokens")
        grant = await granted(counters, Charge(rule, "a", 100))
        counters.settle(grant, [10])
        grant = await granted(counters, Charge(rule, "a", 90))
        counters.settle(grant, [150])
        refused = await refusal(counters, Charge(rule, "a", 1))
        assert refused.wait_s == pytest.approx(61 / SLOW, rel=0.01)

    async def test_a_window_reserves_and_then_has_what_was_spent(self, counters: Counters) -> None:
        rule = window(100)
        grant = await granted(counters, Charge(rule, "a", 80))
        refused = await refusal(counters, Charge(rule, "a", 30))
        assert (refused.spent, refused.reserved, refused.wait_s) == (0, 80, 1.0)
        counters.settle(grant, [25])
        grant = await granted(counters, Charge(rule, "a", 75))
        assert grant.standings[0].spent == 25
        counters.settle(grant, [75])
        refused = await refusal(counters, Charge(rule, "a", 1))
        assert (refused.spent, refused.reserved) == (100, 0)
        now_ms = time.time() * 1000
        end = end_of("day", start_of("day", int(now_ms)))
        assert end is not None
        assert refused.wait_s == pytest.approx((end - now_ms) / 1000, abs=60)

    @pytest.mark.parametrize("period", ["day", "month", "total"])
    async def test_windows_begin_when_their_period_does(self, counters: Counters, period: str) -> None:
        before = start_of(period, int(time.time() * 1000))  # pyright: ignore[reportArgumentType]
        grant = await granted(counters, Charge(window(9, period=period), "a", 1))
        after = start_of(period, int(time.time() * 1000))  # pyright: ignore[reportArgumentType]
        assert grant.standings[0].start_ms in (before, after)

    async def test_requests_of_a_window_are_counted_for_good_at_once(self, counters: Counters) -> None:
        rule = window(2, "requests")
        for _ in range(2):
            await granted(counters, Charge(rule, "a", 1))
        refused = await refusal(counters, Charge(rule, "a", 1))
        assert (refused.spent, refused.reserved) == (2, 0)

    async def test_a_soft_window_refuses_nothing(self, counters: Counters) -> None:
        rule = window(1, hard=False)
        grant = await granted(counters, Charge(rule, "a", 10))
        assert grant.standings[0].used == 10

    async def test_slots_are_free_again_once_settled(self, counters: Counters) -> None:
        rule = slots(2)
        one, _ = await granted(counters, Charge(rule, "a", 1)), await granted(counters, Charge(rule, "a", 1))
        assert (await refusal(counters, Charge(rule, "a", 1))).wait_s == 1.0
        counters.settle(one, [1])
        await granted(counters, Charge(rule, "a", 1))
        await refusal(counters, Charge(rule, "a", 1))

    async def test_what_the_store_knows_is_not_given_out_again(self, counters: Counters) -> None:
        rule = window(100)
        start = start_of("day", int(time.time() * 1000))
        counters.learn(rule.name, "a", start, 90)
        counters.learn(rule.name, "a", start, 40)
        counters.learn(rule.name, "a", start - DAY_MS, 100)
        assert (await refusal(counters, Charge(rule, "a", 20))).spent == 90
        await granted(counters, Charge(rule, "a", 10))

    async def test_a_race_is_won_by_as_many_as_there_is_room_for(self, counters: Counters) -> None:
        rule = window(50)
        answers = await asyncio.gather(*(takes(counters, Charge(rule, "a", 1), lease=n) for n in range(200)))
        assert sum(isinstance(answer, Grant) for answer in answers) == 50


class TestMemory:
    async def test_a_new_day_begins_a_new_window_and_an_old_grant_is_not_of_it(self) -> None:
        now = 1_000_000.0
        counters = MemoryCounters(wall=lambda: now)
        rule = window(10)
        grant = await granted(counters, Charge(rule, "a", 10))
        now += 86_400
        await granted(counters, Charge(rule, "a", 10))
        counters.settle(grant, [10])
        assert counters.spent(rule, "a").used == 10
        now -= 86_400  # a clock that is set back opens nothing
        await refusal(counters, Charge(rule, "a", 1))

    async def test_what_is_at_rest_is_forgotten(self) -> None:
        now = 1e6
        counters = MemoryCounters(clock=lambda: now, wall=lambda: now)
        rules = (rate(100.0, 10), window(10), slots(1))
        for number in range(20_000):
            now += 0.01
            grant = await granted(counters, *(Charge(rule, str(number), 1) for rule in rules))
            counters.settle(grant, [1, 0, 1])
        assert len(counters) <= 1100

    def test_processes_share_what_is_left(self) -> None:
        counters = MemoryCounters()
        start = start_of("day", int(time.time() * 1000))
        daily, fast, places = window(100), rate(SLOW, 40, "tokens"), slots(8)
        counters.learn(daily.name, "a", start, 60)

        def passes(rule: Rule, amount: float) -> int:
            most = range(1000)
            return next(n for n in most if isinstance(counters.take_now([Charge(rule, "a", amount)], 0, 4), Refusal))

        assert passes(daily, 1) == 10
        counters.learn(daily.name, "a", start, 90)  # all four have spent by now
        assert passes(fast, 1) == 10
        assert passes(places, 1) == 2
        assert isinstance(counters.take_now([Charge(fast, "b", 30)], 0, 4), Grant)  # more than a share, less than all


class TestShared:
    async def test_two_processes_have_one_limit_between_them(self, shared: Open) -> None:
        async with shared() as one, shared() as other:
            rule = window(100)
            answers = await asyncio.gather(
                *(takes(each, Charge(rule, "a", 1), lease=n) for n, each in enumerate([one, other] * 100))
            )
            assert sum(isinstance(answer, Grant) for answer in answers) == 100

    async def test_what_a_process_that_died_had_reserved_is_free_again(self, shared: Open) -> None:
        daily, places = window(10), slots(1)
        async with shared() as counters:
            charges = [Charge(daily, "a", 10), Charge(places, "a", 1)]
            assert isinstance(await counters.take(charges, -1, lease_s=0.1), Grant)
            await refusal(counters, *charges)
            await asyncio.sleep(0.11)
            await granted(counters, *charges)

    async def test_the_end_waits_for_nobody(self, shared: Open) -> None:
        for _ in range(10):
            async with asyncio.timeout(30), shared() as counters:
                grants = [await granted(counters, Charge(rate(1.0, 1000), "a", 1)) for _ in range(3)]
                for grant in grants:
                    counters.settle(grant, [1])
                await asyncio.sleep(0)

    async def test_settling_twice_counts_once(self, shared: Open) -> None:
        rule = window(100)
        async with shared() as counters:
            grant = await granted(counters, Charge(rule, "a", 50))
            counters.settle(grant, [50])
            counters.settle(grant, [50])
            assert (await granted(counters, Charge(rule, "a", 50))).standings[0].spent == 50

    async def test_who_leaves_while_it_waits_takes_nothing_along(self, shared: Open) -> None:
        rule = window(50)
        async with shared() as counters:
            waiting = [asyncio.ensure_future(takes(counters, Charge(rule, "a", 1), lease=n)) for n in range(50)]
            await asyncio.sleep(0)
            for task in waiting:
                task.cancel()
            await asyncio.wait(waiting)
            await refusal(counters, Charge(rule, "a", 51))  # behind the others, in the order in which they came
            await granted(counters, Charge(rule, "a", 50))

    async def test_a_redis_that_forgot_learns_from_what_the_processes_know(self, shared: Open) -> None:
        rule = window(100)
        async with shared() as counters:
            grant = await granted(counters, Charge(rule, "a", 90))
            counters.settle(grant, [90])
            assert isinstance(await takes(counters, Charge(rule, "a", 1)), Grant)
            await counters._redis.flushall()
            await counters._redis.script_flush()
            assert (await refusal(counters, Charge(rule, "a", 20))).spent == 90


class TestOutage:
    @pytest.fixture
    def own_redis(self) -> Redis:
        return Redis()

    @staticmethod
    async def _counters(server: Redis, tasks: Tasks, on_outage: str) -> SharedCounters:
        client = connect(RedisConfig(url=server.url, timeout_s=1.0))
        assert client is not None
        counters = SharedCounters(client, prefix="p", timeout_s=1.0, on_outage=on_outage)  # pyright: ignore[reportArgumentType]
        counters.start(tasks)
        return counters

    async def test_local_goes_on_by_itself_and_says_so_once_and_comes_back(
        self, redis_server: Redis, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("parkway.policy.shared_counters._RETRY_S", 0.05)
        server = Redis()
        rule = window(10)
        async with Tasks("test") as tasks:
            counters = await self._counters(server, tasks, "local")
            first = await granted(counters, Charge(rule, "a", 1))
            with caplog.at_level(logging.WARNING):
                server.stop()
                grants = [await granted(counters, Charge(rule, "a", 3)) for _ in range(3)]
                await refusal(counters, Charge(rule, "a", 3))
            assert counters.away
            assert [record.message.split(" (")[0] for record in caplog.records] == ["limits: Redis is away"]
            counters.settle(first, [1])
            for grant in grants:
                counters.settle(grant, [3])
            start = grants[0].standings[0].start_ms
            counters.learn(rule.name, "a", start, 10)  # what the ledger has written meanwhile
            server.start()
            for _ in range(500):
                if not counters.away:
                    break
                await asyncio.sleep(0.02)
            assert (await refusal(counters, Charge(rule, "a", 1))).spent == 10
        server.stop()

    async def test_refuse_lets_nothing_through(self) -> None:
        server = Redis()
        async with Tasks("test") as tasks:
            counters = await self._counters(server, tasks, "refuse")
            await granted(counters, Charge(slots(5), "a", 1))
            server.stop()
            for _ in range(2):
                with pytest.raises(StoreUnavailable, match="on_outage"):
                    await takes(counters, Charge(slots(5), "a", 1))
