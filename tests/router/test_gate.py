"""A gate on a clock that is simulated: who is let in, who waits, who is refused and when to come again."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parkway.core.errors import Draining, Overloaded
from parkway.router.admission.config import AdmissionConfig, GateConfig
from parkway.router.admission.gate import Gate
from parkway.router.admission.gates import Gates
from parkway.router.admission.turn import Stage, Turn
from parkway.router.intake import Intake

CLASSES = (("interactive", 16.0), ("standard", 4.0), ("batch", 1.0))
INTERACTIVE, STANDARD, BATCH = range(3)

Slowness = Callable[[int], float]
"""Seconds that a request takes, by how many run with it."""


class World:
    """A gate, a server behind it, and the time."""

    def __init__(self, slots: int | None, slowness: Slowness = lambda _: 1.0, **config: int) -> None:
        self.now = 0.0
        self.gate = Gate("m", GateConfig.model_validate(config), CLASSES, 32, clock=lambda: self.now)
        self.gate.set_capacity(slots, 1024)
        self._slowness = slowness
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._started: set[Turn] = set()
        self.waiting: set[Turn] = set()
        self.done: list[Turn] = []

    def at(self, when: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._numbers), act))

    def enter(
        self, key: str = "k", lane: int = STANDARD, cost: float = 1.0, tokens: int = 1, within_s: float = 60.0
    ) -> Turn:
        turn = self.gate.enter(key, lane, cost=cost, tokens=tokens, deadline=self.now + within_s)
        self.waiting.add(turn)
        self.at(turn.deadline, lambda: self.gate.expire(turn))
        self._serve()
        return turn

    def run(self, until: float = float("inf")) -> None:
        while self._events and self._events[0][0] <= until:
            self.now, _, act = heapq.heappop(self._events)
            act()
            self._serve()
        self.now = max(self.now, until) if until != float("inf") else self.now

    def _serve(self) -> None:
        """Begins to serve what was let in."""
        for turn in [turn for turn in self.waiting if turn.stage is not Stage.WAITING]:
            self.waiting.remove(turn)
            if turn.stage is Stage.RUNNING:
                self.at(self.now + turn.cost * self._slowness(self.gate.running), lambda turn=turn: self._end(turn))

    def _end(self, turn: Turn) -> None:
        turn.leave(cost=turn.cost)
        self.done.append(turn)


def test_where_there_is_room_nobody_waits() -> None:
    world = World(slots=2)
    assert [world.enter().stage for _ in range(3)] == [Stage.RUNNING, Stage.RUNNING, Stage.WAITING]
    world.run(until=1.0)
    assert (world.gate.running, world.gate.waiting) == (1, 0)
    assert sum(world.gate.figures[STANDARD].waits) == 3


def test_one_whose_deadline_passes_in_the_queue_is_refused_then() -> None:
    world = World(slots=1, slowness=lambda _: 100.0)
    world.enter()
    turn = world.enter(within_s=5.0)
    world.run(until=4.9)
    assert turn.stage is Stage.WAITING
    world.run(until=5.0)
    assert isinstance(turn.error, Overloaded)
    assert "waited 5 s" in turn.error.message
    assert world.gate.waiting == 0
    assert world.gate.figures[STANDARD].shed == {"waited_too_long": 1}


def test_one_that_would_wait_too_long_is_refused_at_once() -> None:
    world = World(slots=2)
    for _ in range(2):
        world.enter()
    world.run()
    for _ in range(12):
        world.enter()
    with pytest.raises(Overloaded, match=r"would wait 5\.5 s for its turn, and may 2 s") as refused:
        world.enter(within_s=2.0)
    assert refused.value.retry_after_s == pytest.approx(4.5)


def test_who_comes_again_after_exactly_the_time_it_was_told_is_served() -> None:
    world = World(slots=4)
    for _ in range(4):
        world.enter()
    world.run()
    told: list[float] = []
    for number in range(60):
        try:
            world.enter(key=f"key-{number}", within_s=3.0)
        except Overloaded as error:
            told.append(world.now + (error.retry_after_s or 0.0))
    assert len(told) > 30
    assert len(set(told)) == len(told)  # a time of its own for each, so that they do not all come together
    returned: list[Turn] = []
    for when in told:
        world.at(when, lambda: returned.append(world.enter(within_s=3.0)))
    world.run()
    assert len(returned) == len(told)
    assert all(turn.error is None for turn in returned)


@settings(max_examples=60, deadline=None)
@given(
    slots=st.integers(min_value=1, max_value=20),
    crowd=st.integers(min_value=2, max_value=25),
    within_s=st.floats(min_value=1.5, max_value=10.0),
    late_s=st.floats(min_value=0.0, max_value=0.99),
)
def test_the_time_to_come_again_is_true_wherever_the_running_ones_stand(
    slots: int, crowd: int, within_s: float, late_s: float
) -> None:
    world = World(slots=slots)
    for _ in range(slots):
        world.enter()
    world.run()
    for _ in range(slots):
        world.enter()
    world.run(until=world.now + late_s)
    told: list[float] = []
    for number in range(crowd * slots):
        try:
            world.enter(key=f"key-{number}", within_s=within_s)
        except Overloaded as error:
            told.append(world.now + (error.retry_after_s or 0.0))
    returned: list[Turn] = []
    for number, when in enumerate(told):
        world.at(when, lambda number=number: returned.append(world.enter(key=f"again-{number}", within_s=within_s)))
    world.run()
    assert len(returned) == len(told)
    assert all(turn.error is None for turn in returned)


def test_a_full_queue_refuses_who_has_most_in_it() -> None:
    world = World(slots=1, max_queue_requests=10)
    world.enter()
    many = [world.enter(key="many") for _ in range(10)]
    with pytest.raises(Overloaded, match=r"10 requests .* waiting; 10 requests"):
        world.enter(key="many")
    one = world.enter(key="one")
    assert isinstance(many[-1].error, Overloaded)
    assert "pushed out" in many[-1].error.message
    assert one.stage is Stage.WAITING
    assert world.gate.waiting == 10


def test_a_key_may_fill_only_its_part() -> None:
    world = World(slots=1, max_key_queue_requests=3, max_key_queue_tokens=100)
    world.enter()
    for _ in range(3):
        world.enter(key="many")
    with pytest.raises(Overloaded, match=r"finds 3 requests .* of its key waiting") as refused:
        world.enter(key="many")
    assert refused.value.retry_after_s
    world.enter(key="long", tokens=80)
    with pytest.raises(Overloaded, match="80 tokens"):
        world.enter(key="long", tokens=80)
    world.enter(key="other")


def test_tokens_bound_the_queue_too() -> None:
    world = World(slots=1, max_queue_tokens=100)
    world.enter()
    world.enter(key="a", tokens=90)
    with pytest.raises(Overloaded, match="90 tokens"):
        world.enter(key="b", tokens=20)


def test_who_leaves_the_queue_is_gone_at_once_and_again_changes_nothing() -> None:
    world = World(slots=1)
    running, waiting = world.enter(), world.enter()
    waiting.leave()
    waiting.leave()
    assert (world.gate.running, world.gate.waiting) == (1, 0)
    running.leave()
    running.leave()
    assert world.gate.running == 0


async def test_a_request_that_is_cancelled_is_out_of_the_queue_within_a_turn_of_the_loop() -> None:
    gate = Gate("m", GateConfig(), CLASSES, 1)
    gate.set_capacity(1, 1)
    first, second, third = (gate.enter("k", STANDARD, cost=1, tokens=1, deadline=gate.clock() + 60) for _ in range(3))

    async def wait(turn: Turn) -> None:
        try:
            await turn.come()
        finally:
            turn.leave()

    tasks = [asyncio.ensure_future(wait(turn)) for turn in (second, third)]
    await asyncio.sleep(0)
    assert gate.waiting == 2
    tasks[0].cancel()
    await asyncio.sleep(0)
    assert gate.waiting == 1
    first.leave()
    tasks[1].cancel()  # at the very moment at which its turn comes
    await asyncio.gather(*tasks, return_exceptions=True)
    assert (gate.waiting, gate.running) == (0, 0)


async def test_waiting_ends_with_the_reason_at_the_deadline() -> None:
    gate = Gate("m", GateConfig(), CLASSES, 1)
    gate.set_capacity(1, 1)
    gate.enter("k", STANDARD, cost=1, tokens=1, deadline=0)
    late = gate.enter("k", STANDARD, cost=1, tokens=1, deadline=gate.clock() + 0.01)
    with pytest.raises(Overloaded, match="the longest that it may"):
        await late.come()
    assert gate.waiting == 0


def test_a_key_with_a_thousand_waiting_does_not_delay_a_key_with_one() -> None:
    world = World(slots=10, max_key_queue_requests=2000, max_queue_requests=2000)
    for _ in range(1000):
        world.enter(key="many", within_s=1000)
    one: list[Turn] = []
    world.at(5.5, lambda: one.append(world.enter(key="one")))
    world.run()
    assert one[0].waited_s <= 1.0


def test_batch_gets_its_share_while_others_never_stop_coming() -> None:
    world = World(slots=1, max_queue_requests=10_000, max_key_queue_requests=10_000)
    for lane in (INTERACTIVE, STANDARD, BATCH):
        for _ in range(500):
            world.enter(lane=lane, within_s=10_000)
    world.run(until=211)
    served = [sum(turn.lane == lane for turn in world.done) for lane in range(3)]
    assert served == [pytest.approx(160, abs=2), pytest.approx(40, abs=2), pytest.approx(10, abs=2)]


@settings(max_examples=40, deadline=None)
@given(st.integers(min_value=1, max_value=8), st.integers(min_value=0, max_value=2**32))
def test_no_slot_is_idle_while_somebody_waits_and_all_are_served(slots: int, seed: int) -> None:
    chance = random.Random(seed)
    world = World(slots=slots, max_key_queue_requests=1000)
    for number in range(150):
        key, lane = chance.choice("abcde"), chance.randrange(3)
        world.at(
            chance.uniform(0, 40),
            lambda key=key, lane=lane, number=number: world.enter(key, lane, 0.5 + number % 7 / 4, 1, 1e6),
        )

    def look() -> None:
        assert not (world.gate.waiting and world.gate.running < slots)
        if world.waiting or world.now < 45:
            world.at(world.now + 0.1, look)

    world.at(0.05, look)
    world.run()
    assert len(world.done) == 150


def goodput(load: float, gate: bool, capacity: int | None = 16, seed: int = 1) -> float:
    """Requests a second that end within their 4 s, at `load` times what a server of 16 slots can do, which collapses
    beyond: its answers then take longer by more than the queue in it explains."""
    chance = random.Random(seed)

    def slowness(running: int) -> float:
        return max(1.0, running / 16) * (1 + max(0.0, running / 16 - 1))

    world = World(capacity if gate else 100_000, slowness)
    good = 0
    when = 0.0
    deadlines: dict[Turn, float] = {}

    def arrive() -> None:
        try:
            within_s = 4.0 - 1.5 * world.gate.mean_s  # as the pipeline does
            turn = world.enter(f"key-{chance.randrange(20)}", within_s=within_s, cost=chance.uniform(0.5, 1.5))
        except Overloaded:
            return
        deadlines[turn] = world.now + 4.0

    end = world._end

    def end_and_count(turn: Turn) -> None:
        nonlocal good
        end(turn)
        good += world.now > 60 and world.now <= deadlines[turn]

    world._end = end_and_count
    while when < 160:
        when += chance.expovariate(16 * load)
        world.at(when, arrive)
    world.run(until=160)
    return good / 100


def test_goodput_stays_where_it_was_under_three_times_the_capacity() -> None:
    loads = (0.5, 1.0, 2.0, 3.0)
    with_gate = {load: goodput(load, gate=True) for load in loads}
    assert with_gate[3.0] >= 0.9 * max(with_gate.values())
    assert max(with_gate.values()) >= 0.95 * 16
    assert goodput(3.0, gate=False) <= 0.2 * 16


def test_goodput_holds_where_the_capacity_has_to_be_found_out() -> None:
    loads = (1.0, 2.0, 3.0)
    found = {load: goodput(load, gate=True, capacity=None) for load in loads}
    assert found[3.0] >= 0.9 * max(found.values())
    assert found[3.0] >= 0.75 * 16


def test_who_would_still_wait_when_the_process_stops_is_told_so_at_once() -> None:
    world = World(slots=1)
    world.enter()
    world.run()
    turns = [world.enter() for _ in range(11)]
    world.gate.drain(4.0)
    refused = [turn for turn in turns if isinstance(turn.error, Draining)]
    assert refused == turns[5:]
    world.run()
    assert all(turn.error is None for turn in turns[:5])


def gates(intakes: dict[str, list[Intake]], **config: object) -> Gates:
    return Gates(AdmissionConfig.model_validate(config), intakes.get, own={"own": GateConfig(max_concurrency=7)})


def limit_of(found: Gates, model: str, prompt_tokens: int = 1) -> float:
    gate = found.find(model, prompt_tokens)
    assert gate is not None
    return gate.limit


def test_the_limit_is_what_all_endpoints_take_together() -> None:
    known = {"m": [Intake(4), Intake(6)], "half": [Intake(4), Intake()], "own": [Intake(8)], "away": []}
    found = gates(known)
    assert limit_of(found, "m") == 10
    assert limit_of(found, "half") == 32  # searched for from there on
    assert limit_of(found, "own") == 7
    assert limit_of(found, "away") == float("inf")  # the router says why nobody can answer
    assert found.find("unknown", 1) is None
    known["m"].pop()
    found.refresh()
    assert limit_of(found, "m") == 4
    assert limit_of(gates({"m": [Intake(9)]}, gateways=3), "m") == 3


def test_models_that_share_endpoints_share_a_gate() -> None:
    found = Gates(AdmissionConfig(), {"m": [Intake(4)]}.get, shared={"m:adapter": "m"})
    assert found.find("m:adapter", 1) is found.find("m", 1)
    assert [name for name, _ in found] == ["m"]


def test_prompts_of_other_lengths_have_a_gate_of_their_own() -> None:
    found = gates({"m": [Intake(4, 0, 1000), Intake(2, 1001, None), Intake(4, 0, 1000)]})
    assert limit_of(found, "m", 10) == 8
    assert limit_of(found, "m", 5000) == 2
    assert [name for name, _ in found] == ["m (0-1000)", "m (1001-)"]


def test_gates_of_models_that_are_gone_are_forgotten() -> None:
    known = {f"m{number}": [Intake(1)] for number in range(50)}
    found = gates(known)
    turn = None
    for model in list(known):
        gate = found.find(model, 1)
        assert gate is not None
        turn = gate.enter("k", 0, cost=1, tokens=1, deadline=1e12)
        if model != "m49":
            turn.leave()
        del known[model]
    found.refresh()
    assert len(list(found)) == 1
    assert turn is not None
    turn.leave()
    found.refresh()
    assert not list(found)
