"""Limits of requests against a model of them in exact fractions, and the limiter's promises one by one."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from parkway.core.chat import ChatRequest
from parkway.core.completions import CompletionRequest
from parkway.core.embeddings import EmbeddingRequest
from parkway.core.errors import BudgetExceeded, InvalidRequest, RateLimited
from parkway.core.rerank import RerankRequest
from parkway.core.wire import decode, encode
from parkway.policy import limiter as module
from parkway.policy import rulebook
from parkway.policy.budgets import BudgetConfig
from parkway.policy.caller import Caller
from parkway.policy.counters import Grant, MemoryCounters, Refusal
from parkway.policy.estimate import Estimate, estimate
from parkway.policy.limiter import Limiter, Taken
from parkway.policy.limits import LimitsConfig
from parkway.policy.prices import Price
from parkway.policy.rule import Charge, Form, Rule
from parkway.policy.rulebook import Party, Rulebook


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


def rule(rate_per_s: float, burst: float) -> Rule:
    return Rule(name="key.r", kind="key", measure="requests", form=Form.RATE, limit=burst, per_s=rate_per_s)


def admits(counters: MemoryCounters, rule: Rule, cost: float = 1.0) -> bool:
    return isinstance(counters.take_now([Charge(rule, "k", cost)], 0), Grant)


async def passes(limiter: Limiter, key_id: str = "k") -> bool:
    try:
        await limiter.admit(Caller(key_id, ""))
    except RateLimited:
        return False
    return True


# Powers of two and whole 1024ths of a second: floating point is exact there, so the comparison needs no tolerance.
exact_rates = st.sampled_from([0.25, 1.0, 2.0, 16.0, 128.0])
exact_steps = st.lists(st.tuples(st.integers(0, 4096).map(lambda n: n / 1024), st.integers(1, 3)), max_size=200)


@given(rate=exact_rates, burst=st.integers(3, 20), steps=exact_steps)
def test_decides_as_the_textbook_bucket_does(rate: float, burst: int, steps: list[tuple[float, int]]) -> None:
    clock, model = Clock(), Bucket(rate, burst)
    counters, held = MemoryCounters(clock), rule(rate, burst)
    for pause, cost in steps:
        clock.now += pause
        assert admits(counters, held, cost) == model.take(clock.now, cost)


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
    counters, held = MemoryCounters(clock), rule(rate, burst)
    times: list[float] = []
    for pause in pauses:
        clock.now += pause / rate
        if admits(counters, held):
            times.append(clock.now)
    for first in range(len(times)):
        for last in range(first, len(times)):
            assert last - first + 1 <= burst + rate * (times[last] - times[first]) + 1e-4


@given(rate=st.floats(0.01, 1e5), burst=st.integers(1, 2000), start=st.floats(0, 1e6))
def test_who_waits_as_long_as_told_passes_and_who_waits_less_does_not(rate: float, burst: int, start: float) -> None:
    clock = Clock(start)
    counters, held = MemoryCounters(clock), rule(rate, burst)
    assert all(admits(counters, held) for _ in range(burst))  # a rested key never gets less than its burst
    refusal = counters.take_now([Charge(held, "k", 1)], 0)
    assert isinstance(refusal, Refusal)
    assert refusal.wait_s == pytest.approx(1 / rate)
    clock.now = start + refusal.wait_s * 0.99
    assert not admits(counters, held)  # and this refusal costs nothing:
    clock.now = start + refusal.wait_s
    assert admits(counters, held)


async def test_the_default_is_a_thousand_at_once_and_a_hundred_a_second() -> None:
    clock = Clock(12345.678)
    limiter = Limiter(LimitsConfig(), clock=clock)
    assert sum([await passes(limiter) for _ in range(2000)]) == 1000
    clock.now += 1
    assert sum([await passes(limiter) for _ in range(2000)]) == 100


async def test_keys_do_not_touch_each_other() -> None:
    limiter = Limiter(LimitsConfig(rate_per_s=1, burst=1), clock=Clock())
    assert await passes(limiter, "a")
    assert not await passes(limiter, "a")
    assert await passes(limiter, "b")


async def test_the_refusal_says_limit_wait_and_where_to_change_it() -> None:
    clock = Clock()
    limiter = Limiter(LimitsConfig(rate_per_s=2, burst=1), clock=clock)
    caller = Caller("k", "laptop")
    await limiter.admit(caller)
    for wait_s in (0.5, 0.25):  # the second time by what is remembered of the first
        with pytest.raises(RateLimited) as caught:
            await limiter.admit(caller)
        assert caught.value.message == (
            f'The key "laptop" (k) is over its limit of 2 requests a second (burst 1); try again in {wait_s} s. '
            "The limit: `limits.rate_per_s` in the configuration."
        )
        assert caught.value.headers() == {
            "retry-after": "1",
            "x-ratelimit-limit-requests": "1",
            "x-ratelimit-remaining-requests": "0",
            "x-ratelimit-reset-requests": f"{wait_s:.3f}s",
        }
        clock.now += 0.25
    await limiter.admit(caller)


async def test_a_changed_limit_holds_at_once_and_what_was_used_stays_used() -> None:
    limiter = Limiter(LimitsConfig(rate_per_s=0.001, burst=2), clock=Clock())
    assert [await passes(limiter) for _ in range(3)] == [True, True, False]
    limiter.replace(LimitsConfig(rate_per_s=0.001, burst=3), [], {})
    assert [await passes(limiter) for _ in range(2)] == [True, False]


async def test_what_can_never_pass_is_told_so() -> None:
    limiter = Limiter(LimitsConfig(tokens_per_minute=10), clock=Clock())
    with pytest.raises(InvalidRequest, match=r"counts as 11 tokens and can never pass.*10 tokens a minute.*max_tokens"):
        await limiter.reserve(Party(key="k"), Estimate(5, 6))
    await limiter.reserve(Party(key="k"), Estimate(5, 5))


async def test_memory_is_that_of_the_active_keys() -> None:
    clock = Clock()
    limiter = Limiter(LimitsConfig(rate_per_s=100, burst=1000, concurrency=5), clock=clock)
    for number in range(20_000):
        clock.now += 0.001  # each key has drained after 0.01 s: 10 of them are active at a time
        limiter.settle(await limiter.reserve(Party(key=f"key {number}"), Estimate(1)), Taken(1, 0))
    assert isinstance(limiter.counters, MemoryCounters)
    assert len(limiter.counters) <= 1025


async def test_a_key_has_what_its_entry_says_and_else_what_every_key_has() -> None:
    config = LimitsConfig.model_validate(
        {
            "rate_per_s": 0.001, "burst": 2, "tokens_per_day": 100,
            "keys": {"laptop": {"burst": 3}, "k2": {"rate_per_s": 0.002}},
            "users": {"*": {"requests_per_day": 1}, "ada": {"requests_per_day": 4}},
        }
    )  # fmt: skip
    book = Rulebook(config)

    def limits(**party: str) -> dict[str, float]:
        charges = book.charges(Party(**party), {"requests": 1, "tokens": 1})
        return {charge.rule.setting: charge.rule.limit for charge in charges}

    assert limits(key="k1") == {"limits.rate_per_s": 2, "limits.tokens_per_day": 100}
    assert limits(key="k1", name="laptop") == {
        "limits.keys.laptop.rate_per_s": 3, "limits.keys.laptop.tokens_per_day": 100,
    }  # fmt: skip
    assert limits(key="k2") == {"limits.keys.k2.rate_per_s": 1, "limits.keys.k2.tokens_per_day": 100}
    assert limits(key="k1", user="bob")["limits.users.*.requests_per_day"] == 1
    assert limits(key="k1", user="ada")["limits.users.ada.requests_per_day"] == 4


async def test_a_reservation_is_settled_once() -> None:
    limiter = Limiter(LimitsConfig(), budgets=[BudgetConfig(kind="key", tokens=100)])
    reservation = await limiter.reserve(Party(key="k"), Estimate(40, 40))
    await limiter.extend(reservation, 20)
    for _ in range(2):
        assert limiter.settle(reservation, Taken(30, 20)) is None
    assert [(state.spent, state.reserved, state.left) for state in await limiter.budgets(Caller("k", ""))] == [
        (50, 0, 50)
    ]
    with pytest.raises(BudgetExceeded, match=r"50 tokens spent, 0 tokens reserved.*up to 51 tokens needed.*renews at"):
        await limiter.reserve(Party(key="k"), Estimate(51))


async def test_what_grows_while_it_is_settled_is_given_back() -> None:
    class Settling(MemoryCounters):
        """A store that takes so long that the request has ended meanwhile."""

        async def take(self, charges: Sequence[Charge], lease: int, lease_s: float = 0.0) -> Grant | Refusal:
            taken = await super().take(charges, lease, lease_s)
            if reservation is not None:
                limiter.settle(reservation, Taken(10, 20))
            return taken

    reservation = None
    limiter = Limiter(LimitsConfig(), Settling(), budgets=[BudgetConfig(kind="key", tokens=100)])
    reservation = await limiter.reserve(Party(key="k"), Estimate(10, 20))
    for _ in range(2):
        await limiter.grow(reservation, 25)
        (state,) = await limiter.budgets(Caller("k", ""))
        assert (state.spent, state.reserved) == (30, 0)


@pytest.mark.parametrize("left", [0, 1, 7, 100])
async def test_what_grows_takes_as_much_as_there_is(left: int) -> None:
    limiter = Limiter(LimitsConfig(), budgets=[BudgetConfig(kind="key", tokens=150 + left)])
    reservation = await limiter.reserve(Party(key="k"), Estimate(50, 100))
    tokens = 100
    with pytest.raises(BudgetExceeded, match=f"rest of this answer.*{150 + left} tokens reserved by it"):
        while True:
            tokens += 1
            if tokens > reservation.expected.completion_tokens:
                await limiter.grow(reservation, tokens)
    assert tokens == 101 + left
    assert len(reservation.grants) < 10


def test_rules_are_remembered_for_so_many_and_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rulebook, "_MAX_REMEMBERED", 3)
    book = Rulebook(LimitsConfig.model_validate({"users": {"*": {"concurrency": 1}, "ada": {"concurrency": 2}}}))
    for _ in range(3):
        for number in range(5):
            user = "ada" if number == 3 else None if number == 4 else str(number)
            charges = book.charges(Party(key=str(number), user=user), {"requests": 1, "concurrency": 1})
            assert [(charge.subject, charge.rule.limit) for charge in charges] == [
                (str(number), 1000),
                *([] if user is None else [(user, 2 if user == "ada" else 1)]),
            ]
            assert len(book._remembered) <= 3


async def test_agents_and_tasks_beyond_count_share_one_account(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_NAMES", 2)
    limiter = Limiter(LimitsConfig(), budgets=[BudgetConfig(kind="task", tokens=10)])
    for task in ("a", "b", "c"):
        await limiter.reserve(Party(key="k", task=task), Estimate(10))
    with pytest.raises(BudgetExceeded, match=r"\(others\)"):
        await limiter.reserve(Party(key="k", task="d"), Estimate(1))


@pytest.mark.parametrize(
    ("price", "taken", "cost"),
    [
        ({"prompt_usd_per_million": 2.5, "completion_usd_per_million": 10}, (1000, 100, 0), 3500),
        ({"prompt_usd_per_million": 2.5, "cached_prompt_usd_per_million": 0.25}, (1000, 0, 900), 475),
        ({"prompt_usd_per_million": 2.5}, (1000, 100, 900), 2500),
        ({"prompt_usd_per_million": 0.1}, (1, 0, 0), 1),  # rounded up
        ({"prompt_usd_per_million": 0.1}, (10, 0, 99), 1),
        ({}, (10, 10, 0), 0),
    ],
)
def test_a_price_is_in_whole_micro_dollars(price: dict[str, float], taken: tuple[int, int, int], cost: int) -> None:
    assert Price.model_validate(price).micro_usd(*taken) == cost


@pytest.mark.parametrize(
    ("kind", "body", "expected"),
    [
        (ChatRequest, {"messages": [{"role": "user", "content": "x" * 391}]}, (None, 1000)),
        (ChatRequest, {"messages": [{"role": "user", "content": "x"}], "max_tokens": 7, "n": 3}, (None, 21)),
        (ChatRequest, {"messages": [{"role": "user", "content": "x"}], "max_tokens": 2**63}, (None, 2**40)),
        (ChatRequest, {"messages": [{"role": "user", "content": [
            {"type": "text", "text": "x" * 400}, {"type": "image_url", "image_url": {"url": "x" * 100_000}}]}]},
            (1104, 1000)),
        (CompletionRequest, {"prompt": ["a", "b"], "max_tokens": 5}, (None, 10)),
        (CompletionRequest, {"prompt": [1, 2], "max_tokens": 5, "best_of": 4}, (None, 20)),
        (EmbeddingRequest, {"input": "x" * 100}, (None, 0)),
        (RerankRequest, {"query": "q", "documents": ["a", "b"]}, (None, 0)),
    ],
)  # fmt: skip
def test_the_estimate(kind: type[Any], body: dict[str, object], expected: tuple[int | None, int]) -> None:
    data = encode({"model": "m", **body})
    prompt, completion = expected
    by_size = -(-len(data) // 4)
    assert estimate(decode(data, kind), len(data), 1000) == Estimate(prompt or by_size, completion)


@pytest.mark.parametrize(
    "values",
    [
        {"rate_per_s": 0},
        {"rate_per_s": -1},
        {"rate_per_s": "nan"},
        {"burst": 0},
        {"tokens_burst": 5},
        {"models": {"m": {"burst": 5}}},
        {"keys": {"*": {"burst": 5}}},
        {"concurrency": 0},
        {"keys": {"k": {"rate": 1}}},
    ],
)
def test_a_limit_that_makes_no_sense_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        LimitsConfig.model_validate(values)
