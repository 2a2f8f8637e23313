"""How many requests a server should have that says nothing of itself, on a clock that is simulated."""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable

import pytest

from parkway.router.admission.concurrency import AdaptiveLimit

Slowness = Callable[[int], float]
"""Seconds that a request takes, by how many run."""


def slots(count: int) -> Slowness:
    """Queues what is over its slots."""
    return lambda running: max(1.0, running / count)


def collapsing(count: int) -> Slowness:
    """Gets less done the more is over its slots."""
    return lambda running: max(1.0, running / count) * (1 + max(0.0, running / count - 1))


def batching(half: int) -> Slowness:
    """Each that joins slows the others a little, and yet it does more in all."""
    return lambda running: 1 + running / half


def drive(limit: AdaptiveLimit, server: Slowness, requests: int, seed: int, begun: float = 0.0) -> tuple[float, float]:
    """Keeps the server as full as the limit allows; the mean of the limit and the throughput of the second half."""
    chance = random.Random(seed)
    sigma = math.sqrt(math.log(1 + 0.3**2))
    running: list[tuple[float, int, float]] = []
    now = half_at = begun
    values: list[int] = []
    for number in range(requests):
        while len(running) < limit.value:
            taken_s = server(len(running) + 1) * chance.lognormvariate(-sigma * sigma / 2, sigma)
            heapq.heappush(running, (now + taken_s, number, taken_s))
        now, _, taken_s = heapq.heappop(running)
        limit.sample(now, taken_s, 1.0, len(running) + 1)
        if number == requests // 2:
            half_at = now
        elif number > requests // 2:
            values.append(limit.value)
    return sum(values) / len(values), len(values) / (now - half_at)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("count", [8, 16, 64])
def test_a_server_that_collapses_is_kept_from_it(count: int, seed: int) -> None:
    value, throughput = drive(AdaptiveLimit(32, 1024), collapsing(count), 12_000, seed)
    assert throughput >= 0.8 * count
    assert value <= 1.3 * count


@pytest.mark.parametrize("seed", range(5))
def test_a_server_with_many_slots_is_not_starved(seed: int) -> None:
    _, throughput = drive(AdaptiveLimit(16, 1024), slots(100), 20_000, seed)
    assert throughput >= 0.75 * 100


@pytest.mark.parametrize("seed", range(5))
def test_a_server_that_batches_is_not_taken_for_slow(seed: int) -> None:
    value, throughput = drive(AdaptiveLimit(4, 1024), batching(20), 20_000, seed)
    assert value >= 15  # nearly twice as slow as for one alone, and doing eight times as much
    assert throughput >= 0.4 * 20


def test_it_stays_within_its_bounds() -> None:
    limit = AdaptiveLimit(32, 40)
    drive(limit, slots(1000), 5_000, 1)
    assert 1 <= limit.value <= 40
    limit.bound(10)
    assert limit.value == 10


def test_what_does_not_fill_it_changes_nothing() -> None:
    limit = AdaptiveLimit(32, 1024)
    for number in range(1000):
        limit.sample(number * 0.01, 1.0, 1.0, running=3)
    assert limit.value == 32


def test_one_that_was_seen_at_its_ease_is_not_buried_first() -> None:
    limit = AdaptiveLimit(32, 1024)
    for number in range(200):
        limit.sample(number * 1.0, 1.0, 1.0, running=2)
    drive(limit, collapsing(8), 200, 1, begun=200.0)
    assert limit.value < 32


def test_a_server_that_became_slower_for_good_is_not_given_up() -> None:
    limit = AdaptiveLimit(16, 1024)
    drive(limit, slots(16), 3_000, 1)
    _, throughput = drive(limit, lambda running: 6 * max(1.0, running / 16), 12_000, 2, begun=1e4)
    assert throughput >= 0.7 * 16 / 6


def test_a_refusal_lowers_it_once() -> None:
    limit = AdaptiveLimit(50, 1024)
    for _ in range(10):
        limit.refused(1.0)
    assert limit.value == 40
