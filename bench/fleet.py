"""Picking an endpoint: what it costs with 1, 10, 100 and 1,000 endpoints of a model, by balancer."""

from __future__ import annotations

import argparse
import statistics
import time

from parkway.router.balance import BALANCERS
from parkway.router.candidate import Candidate
from parkway.router.config import RouterConfig
from parkway.router.counts import Counts
from parkway.router.endpoint import Endpoint
from parkway.router.pool import Pool

SIZES = (1, 2, 10, 100, 1000)
IN_FLIGHT = 256
BODY = b'{"model":"m","messages":[{"role":"system","content":"%s"},{"role":"user","content":"%06d"}]}'


def fleet(size: int) -> list[Candidate]:
    return [
        Candidate(
            Endpoint(endpoint_id=f"e{number}", model="m", url="http://h/v1", upstream_model="m", weight=1 + number % 3),
            wake=lambda: None,
        )
        for number in range(size)
    ]


def cost_us(balance: str, size: int, picks: int) -> float:
    """Microseconds for a pick, the request's start and its end, with 256 requests in flight."""
    pool = Pool("m", balance, RouterConfig(connections_per_endpoint=65_535), Counts())  # pyright: ignore[reportArgumentType]
    pool.adopt(fleet(size))
    bodies = [BODY % (b"x" * 4000, number) for number in range(5000)]
    running = [pool.pick(bodies[number % 5000]) for number in range(IN_FLIGHT)]
    for candidate in running:
        candidate.take()
    started = time.perf_counter()
    for number in range(picks):
        chosen = pool.pick(bodies[number % 5000])
        chosen.take()
        slot = number % IN_FLIGHT
        running[slot].give_back()
        running[slot] = chosen
    return (time.perf_counter() - started) / picks * 1e6


def main() -> None:
    """Prints microseconds, and how many times the cost with ten endpoints a thousand cost."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--picks", type=int, default=20_000)
    arguments.add_argument("--rounds", type=int, default=5)
    options = arguments.parse_args()
    print(f"{'microseconds a pick':24}" + "".join(f"{size:>8}" for size in SIZES) + "   1000 / 10")
    for balance in BALANCERS:
        costs = [
            statistics.median(cost_us(balance, size, options.picks) for _ in range(options.rounds)) for size in SIZES
        ]
        print(f"{balance:24}" + "".join(f"{cost:8.2f}" for cost in costs) + f"{costs[-1] / costs[2]:10.2f}")


if __name__ == "__main__":
    main()
