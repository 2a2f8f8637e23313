"""The endpoints of one model together: probes, rests, outliers, and a pick that does not walk the fleet."""

from __future__ import annotations

import pytest

from parkway.core.errors import NoEndpoint
from parkway.router.candidate import Candidate
from parkway.router.condition import Condition
from parkway.router.config import RouterConfig
from parkway.router.counts import OTHERS, Counts
from parkway.router.pool import Pool
from tests.router.test_balance import candidates

NOW = 1e6


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [NOW]
    monkeypatch.setattr("parkway.router.pool.time.monotonic", lambda: now[0])
    return now


def pool_of(number: int, **changes: object) -> tuple[Pool, list[Candidate]]:
    pool = Pool("m", "least_outstanding", RouterConfig.model_validate(changes), Counts())
    fleet = candidates(*[1] * number)
    pool.adopt(fleet)
    return pool, fleet


def fail(candidate: Candidate, now: float, times: int = 5) -> None:
    for _ in range(times):
        candidate.circuit.failed("status 500", now)


def test_the_only_endpoint_is_ejected_too_and_recovers_by_one_probe(clock: list[float]) -> None:
    pool, (only,) = pool_of(1)
    fail(only, NOW)
    with pytest.raises(NoEndpoint, match="5 of its last 5 requests failed") as caught:
        pool.pick()
    assert caught.value.retry_after_s == pytest.approx(5.0)
    clock[0] += 5.0
    assert pool.pick() is only
    for _ in range(3):
        with pytest.raises(NoEndpoint):
            pool.pick()
    only.circuit.begun()
    assert [pool.pick() for _ in range(3)] == [only] * 3


def test_a_probe_is_sent_also_where_others_are_well(clock: list[float]) -> None:
    pool, (bad, good) = pool_of(2)
    fail(bad, NOW)
    assert {pool.pick() for _ in range(4)} == {good}
    clock[0] += 5.0
    assert [pool.pick() for _ in range(3)] == [bad, good, good]


def test_one_that_rests_comes_back_by_itself(clock: list[float]) -> None:
    pool, (one, two) = pool_of(2)
    one.circuit.rest(7.0, NOW)
    assert {pool.pick() for _ in range(4)} == {two}
    clock[0] += 7.0
    assert {pool.pick() for _ in range(4)} == {one, two}


def serve(candidate: Candidate, good: int, bad: int, seconds: float = 0.1) -> None:
    for number in range(good + bad):
        if number % (good + bad) < good:
            candidate.circuit.succeeded(NOW)
            candidate.latency.observe(seconds, NOW)
        else:
            candidate.circuit.window.add(NOW, all=1, some=1)


def test_one_far_worse_than_its_peers_is_taken_out() -> None:
    pool, fleet = pool_of(4)
    for candidate in fleet[1:]:
        serve(candidate, 98, 2)
    serve(fleet[0], 60, 40)
    assert pool.eject_outliers(NOW) == 1
    assert [candidate.condition for candidate in fleet] == [Condition.OPEN] + [Condition.HEALTHY] * 3
    assert fleet[0].circuit.fault == "40% of its requests fail, of its peers' 2%"
    assert pool.counts.of("ejections_outlier") == {"m": 1}


def test_where_all_are_equally_bad_none_is_an_outlier() -> None:
    pool, fleet = pool_of(4)
    for candidate in fleet:
        serve(candidate, 60, 40)
    assert pool.eject_outliers(NOW) == 0


def test_few_requests_are_no_reason() -> None:
    pool, fleet = pool_of(3)
    serve(fleet[0], 1, 9)
    serve(fleet[1], 100, 0)
    serve(fleet[2], 100, 0)
    assert pool.eject_outliers(NOW) == 0


def test_never_more_than_the_share_is_taken_out_and_the_worst_first() -> None:
    pool, fleet = pool_of(10, outliers={"max_share": 0.2, "failure_margin": 0.3})
    for number, candidate in enumerate(fleet):
        serve(candidate, 100 - 12 * max(0, number - 5), 12 * max(0, number - 5))
    assert pool.eject_outliers(NOW) == 2
    assert [candidate.condition is Condition.OPEN for candidate in fleet] == [False] * 8 + [True] * 2
    assert pool.eject_outliers(NOW) == 0


def test_a_slow_one_is_an_outlier_only_if_that_is_asked_for() -> None:
    for changes, ejected in (({}, 0), ({"outliers": {"slow_times": 5}}, 1)):
        pool, fleet = pool_of(3, **changes)
        for candidate in fleet[1:]:
            serve(candidate, 50, 0, seconds=0.1)
        serve(fleet[0], 50, 0, seconds=2.0)
        assert pool.eject_outliers(NOW) == ejected


def test_a_pick_does_not_walk_the_fleet(monkeypatch: pytest.MonkeyPatch) -> None:
    pool, _ = pool_of(1000)
    pool.pick()
    looked_at: list[Candidate] = []
    condition = Candidate.condition
    monkeypatch.setattr(
        Candidate, "condition", property(lambda each: (looked_at.append(each), condition.__get__(each))[1])
    )
    monkeypatch.setattr(Candidate, "usable", property(lambda each: (looked_at.append(each), True)[1]))
    for _ in range(100):
        pool.pick().take()
    assert len(looked_at) < 10


def test_counts_are_bounded() -> None:
    counts = Counts()
    for number in range(1500):
        counts.add("retries", f"m{number}")
    assert len(counts.of("retries")) == 1001
    assert counts.of("retries")[OTHERS] == 500
