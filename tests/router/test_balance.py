"""How requests are shared."""

from __future__ import annotations

import time
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parkway.router.affinity import PrefixAffinity, blocks_of
from parkway.router.balance import (
    BALANCERS,
    Balancer,
    LatencyAware,
    LeastOutstanding,
    PowerOfTwoChoices,
    SmoothWeightedRoundRobin,
)
from parkway.router.candidate import Candidate
from parkway.router.config import AffinityConfig, RouterConfig
from parkway.router.endpoint import Endpoint


def candidates(*weights: int) -> list[Candidate]:
    return [
        Candidate(
            Endpoint(endpoint_id=f"e{i}", model="m", url="http://h/v1", upstream_model="m", weight=weight),
            wake=lambda: None,
        )
        for i, weight in enumerate(weights)
    ]


def arranged(balancer: Balancer, fleet: list[Candidate]) -> Balancer:
    """The balancer over `fleet`, told of every request as the pool tells it."""
    balancer.arrange(fleet, fleet)
    for candidate in fleet:
        candidate.on_load = lambda candidate, _: balancer.moved(candidate)
    return balancer


def pick(balancer: Balancer, body: bytes = b"", in_flight: int = 0) -> Candidate:
    return balancer.pick(body, in_flight)


def test_round_robin_is_smooth() -> None:
    """The sequence in nginx's own description of the algorithm."""
    balancer = arranged(SmoothWeightedRoundRobin(), candidates(5, 1, 1))
    names = "".join(pick(balancer).endpoint.endpoint_id[-1] for _ in range(14))
    assert names == "0010200" * 2


@given(st.lists(st.integers(1, 20), min_size=1, max_size=8), st.integers(1, 5))
def test_round_robin_gives_each_its_share_in_every_round(weights: list[int], times: int) -> None:
    """Also in a fleet so large that endpoints of one weight share a turn."""
    fleet = candidates(*weights * times)
    balancer = arranged(SmoothWeightedRoundRobin(), fleet)
    for _ in range(3):
        picked = Counter(pick(balancer) for _ in range(sum(weights) * times))
        assert [picked[candidate] for candidate in fleet] == weights * times


@given(
    st.lists(st.tuples(st.integers(1, 20), st.integers(0, 50)), min_size=1, max_size=8),
    st.lists(st.tuples(st.integers(0, 7), st.booleans()), max_size=40),
)
def test_least_outstanding_never_picks_a_busier_one(
    loads: list[tuple[int, int]], changes: list[tuple[int, bool]]
) -> None:
    fleet = candidates(*[weight for weight, _ in loads])
    for candidate, (_, outstanding) in zip(fleet, loads, strict=True):
        candidate.outstanding = outstanding
    balancer = arranged(LeastOutstanding(), fleet)
    for index, more in [*changes, (0, True)]:
        changed = fleet[index % len(fleet)]
        if more:
            changed.take()
        elif changed.outstanding:
            changed.give_back()
        picked = pick(balancer)
        assert all(
            picked.outstanding * other.endpoint.weight <= other.outstanding * picked.endpoint.weight for other in fleet
        )


def test_least_outstanding_shares_ties() -> None:
    """One request at a time: nothing is ever outstanding, and still all endpoints are used."""
    balancer = arranged(LeastOutstanding(), candidates(1, 1, 2))
    counts = Counter[str]()
    for _ in range(400):
        picked = pick(balancer)
        picked.take()
        counts[picked.endpoint.endpoint_id] += 1
        picked.give_back()
    assert counts == {"e0": 100, "e1": 100, "e2": 200}


def test_least_outstanding_keeps_no_more_than_it_needs() -> None:
    balancer = LeastOutstanding()
    arranged(balancer, candidates(1, 2, 3))
    for _ in range(10_000):
        pick(balancer).take()
    assert len(balancer._heap) < 200


def test_two_choices_leave_the_busiest_alone_and_respect_weights() -> None:
    fleet = candidates(1, 1, 1)
    fleet[0].outstanding = 5
    balancer = arranged(PowerOfTwoChoices(), fleet)
    assert fleet[0] not in {pick(balancer) for _ in range(200)}
    light, heavy = fleet = candidates(1, 9)
    balancer = arranged(PowerOfTwoChoices(), fleet)
    for _ in range(1000):
        pick(balancer).take()
    assert heavy.outstanding == pytest.approx(9 * light.outstanding, rel=0.2)


def test_the_slower_endpoint_is_asked_less_and_is_tried_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr("parkway.router.balance.time.monotonic", lambda: clock[0])
    slow, fast = fleet = candidates(1, 1)
    balancer = arranged(LatencyAware(), fleet)
    for _ in range(5):
        slow.latency.observe(1.0, clock[0])
        fast.latency.observe(0.1, clock[0])
    assert {pick(balancer) for _ in range(50)} == {fast}
    fast.outstanding = 20
    assert {pick(balancer) for _ in range(50)} == {slow}, "a queue of 20 at 0.1 s is longer than one second"
    fast.outstanding = 0
    slow.latency.observe(0.1, clock[0] + 100)
    clock[0] += 100
    fast.latency.observe(0.3, clock[0])
    assert {pick(balancer) for _ in range(50)} == {slow}, "what was long ago does not count"


def test_an_endpoint_that_has_not_answered_yet_gets_one_request_at_a_time() -> None:
    new, known = fleet = candidates(1, 1)
    balancer = arranged(LatencyAware(), fleet)
    known.latency.observe(0.5, time.monotonic())
    assert pick(balancer) is new
    new.outstanding = 1
    assert {pick(balancer) for _ in range(20)} == {known}


def body(*messages: str) -> bytes:
    said = b",".join(b'{"role":"user","content":"%s"}' % message.encode() for message in messages)
    return b'{"model":"m","temperature":0.%d,"messages":[%s]}' % (len(said) % 10, said)


SYSTEM = "You answer for the harbour office. " * 80


def test_beginnings_have_their_blocks_in_common() -> None:
    config = AffinityConfig()
    one = blocks_of(body(SYSTEM, "a" * 1000, "b"), config)
    two = blocks_of(body(SYSTEM, "a" * 1000, "b", "answer", "c" * 600), config)
    other = blocks_of(body(SYSTEM, "z" * 1000), config)
    assert two[: len(one) - 1] == one[:-1]
    assert len(two) > len(one)
    assert 4 <= sum(a == b for a, b in zip(one, other, strict=False)) < len(other)
    assert len(blocks_of(b"not even JSON", config)) == 1


def test_a_conversation_stays_where_it_began() -> None:
    fleet = candidates(*[1] * 10)
    balancer = arranged(PrefixAffinity(AffinityConfig()), fleet)
    first = [pick(balancer, body(f"{number} " * 300)) for number in range(50)]
    assert len(set(first)) > 4
    again = [pick(balancer, body(f"{number} " * 300, "answer", "next")) for number in range(50)]
    assert again == first


def test_two_gateways_agree_on_new_conversations() -> None:
    one, two = (arranged(PrefixAffinity(AffinityConfig()), candidates(*[1] * 10)) for _ in range(2))
    for number in range(50):
        conversation = body(f"{number} " * 300)
        assert pick(one, conversation).endpoint == pick(two, conversation).endpoint


def test_a_beginning_that_all_share_is_spread_within_the_bound_and_longer_ones_stay() -> None:
    fleet = candidates(*[1] * 4)
    balancer = arranged(PrefixAffinity(AffinityConfig(load_factor=1.25)), fleet)
    placed = {}
    for number in range(100):
        chosen = pick(balancer, body(SYSTEM, f"{number} " * 300), in_flight=number)
        chosen.take()
        placed[number] = chosen
        assert chosen.outstanding <= max(1, 1.25 * (number + 1) / 4 + 1)
    assert all(candidate.outstanding > 0 for candidate in fleet)
    for candidate in fleet:
        candidate.outstanding = 0
    again = [pick(balancer, body(SYSTEM, f"{number} " * 300, "answer", "more")) for number in range(100)]
    assert again == list(placed.values())


def test_one_that_leaves_moves_only_its_own_conversations() -> None:
    fleet = candidates(*[1] * 5)
    balancer = PrefixAffinity(AffinityConfig(remembered=1))
    balancer.arrange(fleet, fleet)
    before = [pick(balancer, body(f"{number} " * 300)) for number in range(100)]
    balancer.arrange(fleet, fleet[1:])
    after = [pick(balancer, body(f"{number} " * 300)) for number in range(100)]
    assert all(now is then for now, then in zip(after, before, strict=True) if then is not fleet[0])
    assert fleet[0] not in after


def test_what_is_remembered_is_bounded() -> None:
    balancer = PrefixAffinity(AffinityConfig(remembered=100))
    arranged(balancer, candidates(1, 1))
    for number in range(200):
        pick(balancer, body(f"{number} " * 300))
    assert len(balancer._known) == 100


@pytest.mark.parametrize("name", BALANCERS)
def test_every_balancer_copes_with_any_number(name: str) -> None:
    for number in (1, 2, 17, 300):
        fleet = candidates(*range(1, number + 1))
        balancer = arranged(BALANCERS[name](RouterConfig()), fleet)
        for _ in range(20):
            picked = pick(balancer, b'{"messages":[]}')
            assert picked in fleet
            picked.take()
