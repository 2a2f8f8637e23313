"""One of several gateway processes that share a Redis: asks for as much as it can get, and says what it got.

Arguments: the URL of the Redis, `limit` or `budget`, and how many seconds to go on (`limit`) or how many requests to
send at once (`budget`). Waits for a line on standard input; prints the number of requests that passed and, by Redis's
clock, when the first and the last of them did.
"""

from __future__ import annotations

import asyncio
import sys
import time

from parkway.core.errors import BudgetExceeded, RateLimited
from parkway.core.tasks import Tasks
from parkway.policy.budgets import BudgetConfig
from parkway.policy.estimate import Estimate
from parkway.policy.limiter import Limiter, Taken
from parkway.policy.limits import LimitsConfig
from parkway.policy.rulebook import Party
from parkway.policy.shared_counters import SharedCounters
from parkway.store.redis import RedisConfig, connect

PARTY = Party(key="k", model="m", name="shared")


async def hold(limiter: Limiter, seconds: float) -> int:
    """Four clients that never stop asking, for `seconds`."""
    passed = 0
    end = time.monotonic() + seconds

    async def ask() -> None:
        nonlocal passed
        while time.monotonic() < end:
            try:
                limiter.settle(await limiter.reserve(PARTY, Estimate(1)), Taken(1, 0))
                passed += 1
            except RateLimited:
                await asyncio.sleep(0.002)

    await asyncio.gather(*(ask() for _ in range(4)))
    return passed


async def race(limiter: Limiter, requests: int) -> int:
    """So many requests at once, each for one token of a budget."""

    async def ask() -> bool:
        try:
            reservation = await limiter.reserve(PARTY, Estimate(1))
        except BudgetExceeded:
            return False
        await asyncio.sleep(0.01)
        limiter.settle(reservation, Taken(1, 0))
        return True

    return sum(await asyncio.gather(*(ask() for _ in range(requests))))


async def main(url: str, what: str, amount: float) -> None:
    redis = connect(RedisConfig(url=url, timeout_s=5.0))
    assert redis is not None
    counters = SharedCounters(redis, prefix="parkway", timeout_s=5.0)
    rate = {"rate_per_s": 100, "burst": 50} if what == "limit" else {"rate_per_s": 1e6, "burst": 10_000_000}
    budgets = [BudgetConfig(kind="key", period="total", tokens=50)] if what == "budget" else []
    limiter = Limiter(LimitsConfig.model_validate(rate), counters, budgets=budgets)
    async with Tasks("process") as tasks:
        counters.start(tasks)
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        begun = await clock(redis)
        passed = await (hold(limiter, amount) if what == "limit" else race(limiter, int(amount)))
        print(passed, begun, await clock(redis), int(counters.away), flush=True)
        await counters.close()
    await redis.aclose()


async def clock(redis: object) -> float:
    seconds, microseconds = await redis.time()  # pyright: ignore[reportAttributeAccessIssue]
    return seconds + microseconds / 1e6


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], float(sys.argv[3])))
