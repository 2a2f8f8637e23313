"""Which candidates there are, and which of them may be picked."""

from __future__ import annotations

import pytest

from parkway.core.errors import ModelNotFound, NoEndpoint, Overloaded
from parkway.router.condition import Condition
from parkway.router.config import RouterConfig
from parkway.router.endpoint import Endpoint
from parkway.router.fleet import Fleet
from parkway.router.view import View


def endpoint(endpoint_id: str, **changes: object) -> Endpoint:
    values = {"endpoint_id": endpoint_id, "model": "m", "url": "http://h/v1", "upstream_model": "m", **changes}
    return Endpoint(**values)  # type: ignore[arg-type]


def fleet_of(*endpoints: Endpoint, **changes: object) -> Fleet:
    return Fleet(View(endpoints), RouterConfig.model_validate(changes))


def test_an_unknown_model_is_told_the_nearest() -> None:
    with pytest.raises(ModelNotFound, match='Did you mean "park-mini"') as caught:
        fleet_of(endpoint("e1", model="park-mini")).pick("park-mimi")
    assert caught.value.param == "model"


def test_nothing_usable_says_what_is_wrong_with_each() -> None:
    fleet = fleet_of(endpoint("e1", state="down"), endpoint("e2", state="draining"), endpoint("e3"))
    fleet.candidates()[2].circuit.failed_check("its health check answered 500", failures_to_eject=1)
    with pytest.raises(NoEndpoint, match="e1 is down; e2 is draining; e3: its health check answered 500") as caught:
        fleet.pick("m")
    assert caught.value.retry_after_s


def test_a_missing_key_is_told_by_the_name_of_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UPSTREAM_KEY", raising=False)
    with pytest.raises(NoEndpoint, match="UPSTREAM_KEY"):
        fleet_of(endpoint("e1", api_key_env="UPSTREAM_KEY")).pick("m")


def test_full_endpoints_are_passed_over_then_refused() -> None:
    fleet = fleet_of(endpoint("e1"), endpoint("e2"), connections_per_endpoint=2, balance="weighted_round_robin")
    first, second = fleet.candidates()
    first.outstanding = 2
    assert {fleet.pick("m") for _ in range(4)} == {second}
    second.outstanding = 2
    with pytest.raises(Overloaded, match="as many requests in flight as they may"):
        fleet.pick("m")


def test_a_model_sleeps_when_only_what_is_asleep_could_answer() -> None:
    assert fleet_of(endpoint("e1", state="asleep"), endpoint("e2", state="down")).sleeps("m")
    assert not fleet_of(endpoint("e1", state="asleep"), endpoint("e2")).sleeps("m")
    assert not fleet_of(endpoint("e1", state="down")).sleeps("m")
    assert not fleet_of(endpoint("e1", state="asleep")).sleeps("another")


def test_a_suspect_is_the_last_resort() -> None:
    fleet = fleet_of(endpoint("e1"), endpoint("e2"))
    first, second = fleet.candidates()
    first.suspect("connection refused")
    assert {fleet.pick("m") for _ in range(4)} == {second}
    second.circuit.failed_check("no answer", failures_to_eject=1)
    assert fleet.pick("m") is first


def test_another_is_one_that_was_not_tried() -> None:
    fleet = fleet_of(endpoint("e1"), endpoint("e2"))
    first, second = fleet.candidates()
    assert fleet.pick_another("m", [first]) is second
    assert fleet.pick_another("m", [first, second]) is None


def test_a_change_of_weight_keeps_counts_and_condition() -> None:
    view = View([endpoint("e1")])
    fleet = Fleet(view, RouterConfig())
    (before,) = fleet.candidates()
    before.outstanding = 3
    before.suspect("connection refused")
    view.load([endpoint("e1", weight=7), endpoint("e2")])
    after = fleet.pick_another("m", [fleet.pick("m")])
    assert after is before
    assert (before.endpoint.weight, before.outstanding, before.condition) == (7, 3, Condition.SUSPECT)


def test_a_new_address_is_a_new_candidate() -> None:
    view = View([endpoint("e1")])
    fleet = Fleet(view, RouterConfig())
    fleet.candidates()[0].circuit.failed_check("gone", failures_to_eject=1)
    view.load([endpoint("e1", url="http://h:2/v1")])
    assert fleet.pick("m").condition is Condition.HEALTHY


def test_a_return_to_ready_forgets_old_faults() -> None:
    view = View([endpoint("e1")])
    fleet = Fleet(view, RouterConfig())
    fleet.candidates()[0].circuit.failed_check("gone", failures_to_eject=1)
    view.load([endpoint("e1", state="down")])
    view.load([endpoint("e1")])
    assert fleet.pick("m").condition is Condition.HEALTHY


def test_a_dropped_endpoint_is_gone() -> None:
    view = View([endpoint("e1")])
    fleet = Fleet(view, RouterConfig())
    view.load([])
    with pytest.raises(ModelNotFound):
        fleet.pick("m")
