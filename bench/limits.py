"""What a decision about limits and budgets costs, with 10 keys and with 100,000.

CPU time of one reservation with its headers and its settlement, in memory. The claim is the ratio: it does not grow
with the number of keys. What is left of it is the processor's cache, in which 10 keys fit and 100,000 do not; a plain
dictionary that is asked for as many keys shows how much that is.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import time

from parkway.policy.budgets import BudgetConfig
from parkway.policy.estimate import Estimate
from parkway.policy.limiter import Limiter, Taken, headers
from parkway.policy.limits import LimitsConfig
from parkway.policy.prices import Price
from parkway.policy.rulebook import Party

PLENTY = {"rate_per_s": 1e6, "burst": 10_000_000}


def plain() -> Limiter:
    """What every installation has: one rate for each key."""
    return Limiter(LimitsConfig.model_validate(PLENTY))


def everything() -> Limiter:
    """Eleven limits and budgets for each request."""
    limits = {
        **PLENTY,
        "tokens_per_minute": 10**14,
        "requests_per_day": 10**12,
        "concurrency": 1000,
        "users": {"*": {"rate_per_s": 1e6}},
        "teams": {"*": {"tokens_per_day": 10**14}},
        "models": {"*": {"concurrency": 100_000}},
    }
    budgets = [
        BudgetConfig(kind="key", tokens=10**13, usd=1e8),
        BudgetConfig(kind="team", period="day", usd=1e8),
        BudgetConfig(kind="model", period="total", tokens=10**14),
    ]
    prices = {"m": Price(prompt_usd_per_million=1, completion_usd_per_million=2)}
    return Limiter(LimitsConfig.model_validate(limits), budgets=budgets, prices=prices)


async def cost_us(limiter: Limiter, keys: int, requests: int) -> float:
    """Microseconds of CPU a request, once every key has been seen."""
    parties = [Party(key=f"key-{n}", user=f"user-{n % 1000}", team=f"team-{n % 50}", model="m") for n in range(keys)]
    random.Random(1).shuffle(parties)
    expected, taken = Estimate(100, 1024), Taken(90, 200)

    async def one(party: Party) -> None:
        reservation = await limiter.reserve(party, expected)
        headers(reservation.grants[0])
        limiter.settle(reservation, taken)

    for party in parties:
        await one(party)
    begun = time.process_time()
    for number in range(requests):
        await one(parties[number % keys])
    return (time.process_time() - begun) / requests * 1e6


def lookup_us(keys: int, requests: int) -> float:
    """The same for a dictionary that is read and written once."""
    names = [f"key-{n}" for n in range(keys)]
    random.Random(1).shuffle(names)
    held = {("rate", name): (0.0, 0.0) for name in names}
    begun = time.process_time()
    for number in range(requests):
        state = ("rate", names[number % keys])
        held[state] = (held[state][0] + 1.0, 0.0)
    return (time.process_time() - begun) / requests * 1e6


def main() -> None:
    """Prints the costs and their ratios."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--requests", type=int, default=100_000)
    requests = arguments.parse_args().requests
    print(f"{'us of CPU a request':24}{'10 keys':>10}{'1,000':>10}{'100,000':>10}{'ratio':>8}")
    for name, make in (("one limit", plain), ("all kinds, 11 rules", everything)):
        costs = [asyncio.run(cost_us(make(), keys, requests)) for keys in (10, 1000, 100_000)]
        print(f"{name:24}{costs[0]:10.2f}{costs[1]:10.2f}{costs[2]:10.2f}{costs[2] / costs[0]:8.2f}")
    costs = [lookup_us(keys, requests) for keys in (10, 1000, 100_000)]
    print(f"{'a dictionary, once':24}{costs[0]:10.2f}{costs[1]:10.2f}{costs[2]:10.2f}{costs[2] / costs[0]:8.2f}")


if __name__ == "__main__":
    main()
