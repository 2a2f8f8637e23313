"""How an endpoint's condition follows from what happens to it: live requests."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parkway.router.condition import Circuit, Condition
from parkway.router.config import BreakerConfig, OutlierConfig

CONFIG = BreakerConfig(failures=3, retry_s=5, requests=10, failure_share=0.5)


def circuit(config: BreakerConfig = CONFIG) -> tuple[Circuit, list[object]]:
    news: list[object] = []
    return Circuit("e1", config, news.append), news


def opened() -> Circuit:
    made, _ = circuit()
    for _ in range(3):
        made.failed("status 500", 100.0)
    return made


def test_failures_in_a_row_open_it() -> None:
    made, news = circuit()
    assert [made.failed("status 500", 100.0) for _ in range(3)] == [False, False, True]
    assert (made.condition, made.until, news) == (Condition.OPEN, 105.0, ["failures"])
    assert made.fault == "status 500; 3 of its last 3 requests failed"


def test_an_answer_in_between_keeps_it_closed_and_a_check_does_not() -> None:
    made, _ = circuit()
    for number in range(8):
        made.failed("status 500", 100.0 + number * 20)
        made.suspect("it closed the connection")
        made.succeeded(101.0 + number * 20)
        made.passed()
    assert made.condition is Condition.HEALTHY
    for _ in range(3):
        made.failed("status 500", 300.0)
        made.suspect("it closed the connection")
        made.passed()
    assert made.condition is Condition.OPEN


def test_a_share_of_failures_opens_it() -> None:
    made, _ = circuit()
    for _ in range(5):
        made.succeeded(100.0)
        assert made.condition is Condition.HEALTHY
        made.failed("status 500", 100.0)
    assert made.condition is Condition.OPEN


def test_after_its_time_one_request_decides() -> None:
    made = opened()
    assert not made.renew(104.9)
    assert made.renew(105.0)
    made.probe()
    assert made.condition is Condition.PROBING
    assert not made.renew(200.0), "one is enough"
    made.failed("status 500", 106.0)
    assert (made.condition, made.until) == (Condition.OPEN, 111.0)
    made.renew(111.0)
    made.probe()
    made.begun()
    made.succeeded(112.0)
    assert made.condition is Condition.HEALTHY
    assert not made.failed("status 500", 112.0)


def test_an_answer_that_began_well_and_broke_opens_it_again() -> None:
    made = opened()
    made.probe()
    made.begun()
    assert made.condition is Condition.HEALTHY
    assert made.failed("the connection broke within an answer", 106.0)
    assert made.condition is Condition.OPEN


def test_a_probe_that_was_given_up_lets_another_one_go() -> None:
    made = opened()
    made.probe()
    made.given_up(106.0)
    assert made.renew(106.0)


def test_checks_do_not_close_it() -> None:
    made = opened()
    made.passed()
    assert made.condition is Condition.OPEN


def test_a_rest_lasts_as_long_as_was_asked_for_within_the_bound() -> None:
    made, _ = circuit()
    made.rest(7.0, 100.0)
    made.renew(106.9)
    assert made.condition is Condition.RESTING
    made.renew(107.0)
    assert made.condition is Condition.HEALTHY
    made.rest(1e9, 200.0)
    assert made.until == 260.0


def test_each_outlier_ejection_lasts_longer_up_to_a_bound() -> None:
    made, news = circuit()
    config, now, lengths = OutlierConfig(eject_s=10, max_eject_s=25), 100.0, []
    for _ in range(4):
        made.eject_outlier("worse", config, now)
        lengths.append(made.until - now)
        now = made.until
        made.renew(now)
        made.probe()
        made.begun()
    assert lengths == [10, 20, 25, 25]
    assert set(news) == {"outlier", None}


STEPS = ("suspect", "begun", "succeeded", "failed", "rest", "given_up", "passed", "check", "pick")


@given(st.lists(st.sampled_from(STEPS), max_size=60))
def test_it_never_gets_stuck(steps: list[str]) -> None:
    """Whatever happens: after enough time, passing checks and one good answer it is healthy."""
    made, _ = circuit()
    now = 0.0
    for step in steps:
        now += 1.0
        match step:
            case "suspect":
                made.suspect("x")
            case "failed":
                made.failed("x", now)
            case "rest":
                made.rest(3.0, now)
            case "check":
                made.failed_check("x", 2)
            case "passed" | "begun":
                getattr(made, step)()
            case "pick":
                if made.renew(now):
                    made.probe()
            case _:
                getattr(made, step)(now)
        assert made.condition is not Condition.OPEN or made.until <= now + CONFIG.retry_s
    if made.condition is Condition.PROBING:
        made.given_up(now)
    now += 1000.0
    made.passed()
    if made.renew(now):
        made.probe()
        made.begun()
    assert made.condition is Condition.HEALTHY


@pytest.mark.parametrize("condition", [Condition.OPEN, Condition.RESTING, Condition.PROBING])
def test_failed_checks_eject_from_any_condition(condition: Condition) -> None:
    made = opened()
    made.condition = condition
    made.failed_check("gone", 1)
    assert made.condition is Condition.EJECTED
    made.failed("late", 100.0)
    made.begun()
    made.rest(1.0, 100.0)
    assert made.condition is Condition.EJECTED
