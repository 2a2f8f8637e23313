"""The limiter against a model of it in exact fractions, and its promises one by one."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from parkway.core.errors import InvalidRequest, RateLimited
from parkway.policy.limits import Limiter, LimitsConfig


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Bucket:
    """The textbook token bucket, in exact fractions."""

    def __init__(self, rate_per_s: float, burst: int) -> None:
        self.rate_per_s, self.burst = Fraction(rate_per_s), Fraction(burst)
        self.tokens, self.at = self.burst, Fraction(0)

    def take(self, now: float, cost: float = 1.0) -> bool:
        self.tokens = min(self.burst, self.tokens + (Fraction(now) - self.at) * self.rate_per_s)
        self.at = Fraction(now)
        if self.tokens < Fraction(cost):
            return False
        self.tokens -= Fraction(cost)
        return True


def admits(limiter: Limiter, key_id: str = "k", cost: float = 1.0) -> bool:
    try:
        limiter.admit(key_id, cost)
    except RateLimited:
        return False
    return True


# Powers of two and whole 1024ths of a second: floating point is exact there, so the comparison needs no tolerance.
exact_rates = st.sampled_from([0.25, 1.0, 2.0, 16.0, 128.0])
exact_steps = st.lists(st.tuples(st.integers(0, 4096).map(lambda n: n / 1024), st.integers(1, 3)), max_size=200)


@given(rate=exact_rates, burst=st.integers(3, 20), steps=exact_steps)
def test_decides_as_the_textbook_bucket_does(rate: float, burst: int, steps: list[tuple[float, int]]) -> None:
    clock, model = Clock(), Bucket(rate, burst)
    limiter = Limiter(LimitsConfig(rate_per_s=rate, burst=burst), clock)
    for pause, cost in steps:
        clock.now += pause
        assert admits(limiter, cost=cost) == model.take(clock.now, cost)


@given(
    rate=st.floats(0.01, 1e5),
    burst=st.integers(1, 50),
    start=st.floats(0, 1e6),
    pauses=st.lists(st.floats(0, 2), max_size=200),
)
def test_no_window_lets_more_through_than_burst_and_rate(
    rate: float, burst: int, start: float, pauses: list[float]
) -> None:
    clock = Clock(start)
    limiter = Limiter(LimitsConfig(rate_per_s=rate, burst=burst), clock)
    times: list[float] = []
    for pause in pauses:
        clock.now += pause / rate
        if admits(limiter):
            times.append(clock.now)
    for first in range(len(times)):
        for last in range(first, len(times)):
            assert last - first + 1 <= burst + rate * (times[last] - times[first]) + 1e-4


@given(rate=st.floats(0.01, 1e5), burst=st.integers(1, 2000), start=st.floats(0, 1e6))
def test_who_waits_as_long_as_told_passes_and_who_waits_less_does_not(rate: float, burst: int, start: float) -> None:
    clock = Clock(start)
    limiter = Limiter(LimitsConfig(rate_per_s=rate, burst=burst), clock)
    assert all(admits(limiter) for _ in range(burst))  # a rested key never gets less than its burst
    with pytest.raises(RateLimited) as caught:
        limiter.admit("k")
    wait_s = caught.value.retry_after_s
    assert wait_s is not None
    assert wait_s == pytest.approx(1 / rate)
    clock.now = start + wait_s * 0.99
    assert not admits(limiter)  # and this refusal costs nothing:
    clock.now = start + wait_s
    assert admits(limiter)


def test_the_default_is_a_thousand_at_once_and_a_hundred_a_second() -> None:
    clock = Clock(12345.678)
    limiter = Limiter(LimitsConfig(), clock)
    assert sum(admits(limiter) for _ in range(2000)) == 1000
    clock.now += 1
    assert sum(admits(limiter) for _ in range(2000)) == 100


def test_keys_do_not_touch_each_other() -> None:
    limiter = Limiter(LimitsConfig(rate_per_s=1, burst=1), Clock())
    assert admits(limiter, "a")
    assert not admits(limiter, "a")
    assert admits(limiter, "b")


def test_the_refusal_says_limit_wait_and_where_to_change_it() -> None:
    limiter = Limiter(LimitsConfig(rate_per_s=2, burst=1), Clock())
    limiter.admit("k")
    with pytest.raises(RateLimited, match=r"2 requests a second \(burst 1\); try again in 0\.5 s.*`limits`") as caught:
        limiter.admit("k")
    assert caught.value.headers() == {"retry-after": "1"}


def test_what_can_never_pass_is_told_so() -> None:
    limiter = Limiter(LimitsConfig(burst=10), Clock())
    with pytest.raises(InvalidRequest, match="counts as 11 requests and can never pass"):
        limiter.admit("k", cost=11)
    assert admits(limiter, cost=10)


def test_memory_is_that_of_the_active_keys() -> None:
    clock = Clock()
    limiter = Limiter(LimitsConfig(rate_per_s=100, burst=1000), clock)
    for number in range(50_000):
        clock.now += 0.001  # each key has drained after 0.01 s: 10 of them are active at a time
        limiter.admit(f"key {number}")
    assert len(limiter) <= 1025


@pytest.mark.parametrize("values", [{"rate_per_s": 0}, {"rate_per_s": -1}, {"rate_per_s": "nan"}, {"burst": 0}])
def test_a_limit_that_makes_no_sense_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        LimitsConfig.model_validate(values)
