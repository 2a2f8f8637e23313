"""Whose turn it is: nobody starves, everybody gets a share by weight, and no turn is wasted."""

from __future__ import annotations

from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parkway.router.admission.fair_queue import Entry, FairQueue

WEIGHTS = (16.0, 4.0, 1.0)

costs = st.floats(min_value=1, max_value=1000)
entries = st.builds(
    lambda key, lane, cost: Entry(key_id=key, lane=lane, cost=cost, tokens=int(cost)),
    st.sampled_from("abcdefgh"),
    st.sampled_from([0, 1, 2]),
    costs,
)


def entry(key: str, lane: int = 0, cost: float = 1.0, weight: float = 1.0) -> Entry:
    return Entry(key_id=key, lane=lane, cost=cost, tokens=1, weight=weight)


def test_a_key_with_a_thousand_does_not_delay_a_key_with_one() -> None:
    queue = FairQueue([1.0])
    for _ in range(1000):
        queue.push(entry("many"))
    for _ in range(100):
        queue.pop()
    one = entry("one")
    queue.push(one)
    assert one in (queue.pop(), queue.pop())


def test_entries_of_a_key_keep_their_order() -> None:
    queue = FairQueue([1.0])
    pushed = [entry("a", cost=cost) for cost in (9.0, 1.0, 5.0)]
    for each in pushed:
        queue.push(each)
    assert [queue.pop() for _ in pushed] == pushed


def test_nothing_waits_in_an_empty_queue() -> None:
    with pytest.raises(IndexError):
        FairQueue(WEIGHTS).pop()


def test_the_most_urgent_class_is_first_among_equals() -> None:
    queue = FairQueue(WEIGHTS)
    last, first = entry("a", lane=2), entry("b", lane=0)
    queue.push(last)
    queue.push(first)
    assert [queue.pop(), queue.pop()] == [first, last]


@given(st.lists(entries, min_size=1, max_size=200))
def test_all_that_goes_in_comes_out_and_the_counts_agree(pushed: list[Entry]) -> None:
    queue = FairQueue(WEIGHTS)
    for each in pushed:
        queue.push(each)
    assert queue.waiting == len(pushed)
    assert queue.tokens == sum(each.tokens for each in pushed)
    assert {id(each) for each in queue} == {id(each) for each in pushed}
    popped = [queue.pop() for _ in pushed]
    assert {id(each) for each in popped} == {id(each) for each in pushed}
    assert (queue.waiting, queue.tokens) == (0, 0)


@given(
    st.lists(st.tuples(st.floats(min_value=0.1, max_value=10), costs), min_size=2, max_size=8),
    st.integers(min_value=20, max_value=200),
)
def test_keys_that_always_wait_share_by_weight(keys: list[tuple[float, float]], turns: int) -> None:
    """Between any two the difference of what they got for their weight is at most one request of each (Goyal 1996)."""
    queue = FairQueue([1.0])
    for key, (weight, cost) in enumerate(keys):
        for _ in range(turns):
            queue.push(entry(str(key), cost=cost, weight=weight))
    served: dict[str, float] = defaultdict(float)
    for _ in range(turns):
        each = queue.pop()
        served[each.key_id] += each.cost
    shares = [(served[str(key)] / weight, cost / weight) for key, (weight, cost) in enumerate(keys)]
    for share, own in shares:
        for other, theirs in shares:
            assert abs(share - other) <= (own + theirs) * (1 + 1e-9)


@given(st.lists(st.floats(min_value=1, max_value=100), min_size=3, max_size=3), costs)
def test_classes_share_by_weight_and_the_least_does_not_starve(weights: list[float], cost: float) -> None:
    queue = FairQueue(weights)
    for lane in range(3):
        for _ in range(300):
            queue.push(entry("k", lane=lane, cost=cost))
    served = [0.0, 0.0, 0.0]
    for _ in range(300):
        each = queue.pop()
        served[each.lane] += each.cost
    for lane, weight in enumerate(weights):
        assert abs(served[lane] / weight - sum(served) / sum(weights)) <= 2 * cost / min(weights)


@settings(max_examples=50)
@given(st.data())
def test_under_any_arrivals_nobody_waits_longer_than_fairness_allows(data: st.DataObject) -> None:
    """A key that has one entry waits for at most one of each other key of its class, and their share of the others."""
    queue = FairQueue([1.0])
    busy = data.draw(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=300))
    for key in busy:
        queue.push(entry(key, cost=data.draw(st.floats(min_value=1, max_value=10))))
    for _ in range(data.draw(st.integers(min_value=0, max_value=len(busy) - 1))):
        queue.pop()
    longest = max((each.cost for each in queue), default=0.0)
    keys = {each.key_id for each in queue}
    one = entry("late", cost=1.0)
    bound = queue.cost_until(one)
    queue.push(one)
    before = 0.0
    while (popped := queue.pop()) is not one:
        before += popped.cost
    assert before <= len(keys) * (longest + 1) + 1e-6
    assert bound <= len(keys) + 1.0  # what is foretold: of each key as much as of its own


def test_a_key_pays_for_what_it_really_took() -> None:
    queue = FairQueue([1.0])
    for _ in range(50):
        queue.push(entry("cheap", cost=10))
        queue.push(entry("dear", cost=10))
    served: dict[str, float] = defaultdict(float)
    for _ in range(40):
        each = queue.pop()
        true = 10 if each.key_id == "cheap" else 90
        queue.correct(each, true)
        served[each.key_id] += true
    assert abs(served["dear"] - served["cheap"]) <= 100


def test_what_passes_without_waiting_is_charged() -> None:
    queue = FairQueue([1.0])
    for _ in range(10):
        queue.charge(entry("a", cost=10))
    queue.push(a := entry("a"))
    queue.push(b := entry("b"))
    assert [queue.pop(), queue.pop()] == [b, a]


def test_nobody_saves_up_turns() -> None:
    queue = FairQueue([1.0])
    for _ in range(100):
        queue.charge(entry("busy", cost=10))
    for _ in range(10):
        queue.push(entry("busy", cost=10))
        queue.push(entry("idle", cost=10))
    first = [queue.pop().key_id for _ in range(10)]
    assert first.count("busy") >= 4


def test_an_entry_can_leave_from_anywhere() -> None:
    queue = FairQueue(WEIGHTS)
    pushed = [entry("a"), entry("a"), entry("b", lane=1), entry("a")]
    for each in pushed:
        queue.push(each)
    queue.remove(pushed[1])
    queue.remove(pushed[2])
    with pytest.raises(ValueError, match="not in the queue"):
        queue.remove(pushed[2])
    assert [queue.pop(), queue.pop()] == [pushed[0], pushed[3]]
    assert queue.waiting == 0


def test_who_fills_the_queue_makes_room() -> None:
    queue = FairQueue(WEIGHTS)
    batch = [entry("a", lane=2) for _ in range(9)]
    for each in batch:
        queue.push(each)
    queue.push(entry("b", lane=2))
    assert queue.pushed_out_by(entry("c", lane=0)) is batch[-1]  # a more urgent class
    assert queue.pushed_out_by(entry("c", lane=2)) is batch[-1]  # a key with less
    assert queue.pushed_out_by(entry("a", lane=2)) is None


def test_a_flood_of_urgent_requests_leaves_room_for_the_others() -> None:
    queue = FairQueue(WEIGHTS)
    for _ in range(100):
        queue.push(entry("flood", lane=0))
    assert queue.pushed_out_by(entry("patient", lane=2)) is not None


def test_keys_that_are_gone_are_forgotten() -> None:
    queue = FairQueue([1.0])
    for number in range(20_000):
        queue.charge(entry(f"key-{number}"))
    assert len(queue._lanes[0].flows) <= 2048
