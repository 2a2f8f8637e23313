"""How requests are shared."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parkway.router.balance import BALANCERS, LeastOutstanding, SmoothWeightedRoundRobin
from parkway.router.candidate import Candidate
from parkway.router.endpoint import Endpoint


def candidates(*weights: int) -> list[Candidate]:
    names = "abcdefgh"
    return [
        Candidate(
            Endpoint(endpoint_id=names[i], model="m", url="http://h/v1", upstream_model="m", weight=weight),
            wake=lambda: None,
        )
        for i, weight in enumerate(weights)
    ]


def test_round_robin_is_smooth() -> None:
    """The sequence in nginx's own description of the algorithm."""
    balancer, fleet = SmoothWeightedRoundRobin(), candidates(5, 1, 1)
    assert "".join(balancer.pick(fleet).endpoint.endpoint_id for _ in range(14)) == "aabacaa" * 2


@given(st.lists(st.integers(1, 20), min_size=1, max_size=8))
def test_round_robin_gives_each_its_share_in_every_round(weights: list[int]) -> None:
    balancer, fleet = SmoothWeightedRoundRobin(), candidates(*weights)
    for _ in range(3):
        picked = Counter(id(balancer.pick(fleet)) for _ in range(sum(weights)))
        assert [picked[id(candidate)] for candidate in fleet] == weights


@given(st.lists(st.tuples(st.integers(1, 20), st.integers(0, 50)), min_size=1, max_size=8))
def test_least_outstanding_never_picks_a_busier_one(loads: list[tuple[int, int]]) -> None:
    fleet = candidates(*[weight for weight, _ in loads])
    for candidate, (_, outstanding) in zip(fleet, loads, strict=True):
        candidate.outstanding = outstanding
    picked = LeastOutstanding().pick(fleet)
    assert all(
        picked.outstanding * other.endpoint.weight <= other.outstanding * picked.endpoint.weight for other in fleet
    )


def test_least_outstanding_shares_ties() -> None:
    """One request at a time: nothing is ever outstanding, and still all endpoints are used."""
    balancer, fleet = LeastOutstanding(), candidates(1, 1, 2)
    picked = Counter(balancer.pick(fleet).endpoint.endpoint_id for _ in range(400))
    assert picked == {"a": 100, "b": 100, "c": 200}


@pytest.mark.parametrize("name", BALANCERS)
def test_every_balancer_copes_with_one_candidate(name: str) -> None:
    (only,) = fleet = candidates(3)
    assert BALANCERS[name]().pick(fleet) is only
