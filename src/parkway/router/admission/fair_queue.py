"""A queue that is fair between classes by weight, and between the keys of each class."""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import msgspec

_FORGET_ABOVE = 1024  # keys of a class that are remembered although nothing of them waits


class Entry(msgspec.Struct, kw_only=True, eq=False):
    """Something that waits.

    Attributes:
        lane: The index of its class, 0 is the most urgent.
        cost: What it takes of the server, in tokens of an answer; estimated, corrected once it is known.
        tokens: What it counts against the bounds of the queue.
        weight: The share of its key, relative to the other keys of the class.
    """

    key_id: str
    lane: int
    cost: float
    tokens: int = 0
    weight: float = 1.0


@dataclass(slots=True, eq=False)
class _Flow:
    """The entries of one key in one class. `start` is the tag of its first entry, `finish` that of the last served."""

    weight: float
    finish: float
    start: float = 0.0
    mark: int = 0  # of its place in the heap; older ones are stale
    entries: deque[Entry] = field(default_factory=deque[Entry])
    cost: float = 0.0
    tokens: int = 0


@dataclass(slots=True, eq=False)
class _Lane:
    """One class: its own tags among the classes, and the clock and the heap of its keys."""

    weight: float
    start: float = 0.0
    finish: float = 0.0
    now: float = 0.0
    waiting: int = 0
    cost: float = 0.0
    flows: dict[str, _Flow] = field(default_factory=dict[str, _Flow])
    heap: list[tuple[float, int, str]] = field(default_factory=list[tuple[float, int, str]])
    busy: dict[str, _Flow] = field(default_factory=dict[str, _Flow])  # those of `flows` that have entries

    def entries(self) -> Iterator[Entry]:
        for flow in self.busy.values():
            yield from flow.entries


class FairQueue:
    """Start-time fair queueing on two levels: classes share by weight, and within each its keys.

    Whoever has been served least for its weight is next. A class or key that was away gets no credit for it, so
    nobody saves up turns, and a class or key that waits is served again after a time that depends on how many others
    there are and not on how much they have queued. Entries of one key keep their order.

    Costs are estimates when an entry is served; `correct` puts the difference on its key's account. What passes
    without having to wait is charged, too. With several requests in service at a time the bounds on fairness grow by
    their number.

    Sources: Goyal, Vin, Cheng, 1996, "Start-time Fair Queuing: A Scheduling Algorithm for Integrated Services Packet
    Switching Networks"; Jin, Chase, Kaur, 2004, "Interposed Proportional Sharing for a Storage Service Utility", for
    several in service (SFQ(D)); McKenney, 1990, "Stochastic Fairness Queueing", for whom to push out of a full queue.

    Args:
        weights: Of the classes, most urgent first.
    """

    def __init__(self, weights: Sequence[float]) -> None:
        self._lanes = [_Lane(weight) for weight in weights]
        self._now = 0.0
        self._marks = itertools.count(1)
        self.waiting = 0
        self.tokens = 0

    def reorder(self, weights: Sequence[float], before: Sequence[int | None], orphans: int) -> None:
        """Other classes from now on. What waits keeps its place within its key, and what was served stays charged.

        Args:
            weights: Of the classes, most urgent first.
            before: The index that each class had until now; None for one that is new.
            orphans: The index of the class that takes what waits in one that is gone, behind what waits there.
        """
        gone = [lane for number, lane in enumerate(self._lanes) if number not in before]
        kept = [None if number is None else self._lanes[number] for number in before]
        self._lanes = [lane or _Lane(weight) for lane, weight in zip(kept, weights, strict=True)]
        for number, (lane, weight) in enumerate(zip(self._lanes, weights, strict=True)):
            lane.weight = weight
            for entry in lane.entries():
                entry.lane = number
        for lane in gone:
            self.waiting -= lane.waiting
            for entry in list(lane.entries()):
                self.tokens -= entry.tokens
                entry.lane = orphans
                self.push(entry)

    def __iter__(self) -> Iterator[Entry]:
        for lane in self._lanes:
            yield from lane.entries()

    def charge(self, entry: Entry) -> None:
        """Counts an entry that is served without having waited."""
        lane = self._lanes[entry.lane]
        start = lane.finish if lane.finish > self._now else self._now
        self._now = start
        lane.finish = start + entry.cost / lane.weight
        flow = self._flow(lane, entry)
        start = flow.finish if flow.finish > lane.now else lane.now
        lane.now = start
        flow.finish = start + entry.cost / flow.weight

    def push(self, entry: Entry) -> None:
        """Puts `entry` at the end of its key's queue."""
        lane = self._lanes[entry.lane]
        flow = self._flow(lane, entry)
        if not lane.waiting:
            lane.start = max(self._now, lane.finish)
        if not flow.entries:
            lane.busy[entry.key_id] = flow
            self._place(lane, entry.key_id, flow, max(lane.now, flow.finish))
        flow.entries.append(entry)
        self._count(lane, flow, entry, 1)

    def pop(self) -> Entry:
        """Takes out the entry whose turn it is. Raises IndexError if nothing waits."""
        backlogged = [lane for lane in self._lanes if lane.waiting]
        if not backlogged:
            raise IndexError("pop from an empty queue")
        lane = min(backlogged, key=lambda lane: lane.start)  # the first of equals: the most urgent
        key_id, flow = self._next(lane)
        entry = flow.entries.popleft()
        self._count(lane, flow, entry, -1)
        self._now = max(self._now, lane.start)
        lane.finish = lane.start = lane.start + entry.cost / lane.weight
        lane.now = max(lane.now, flow.start)
        flow.finish = flow.start + entry.cost / flow.weight
        self._go_on(lane, key_id, flow, flow.finish)
        return entry

    def remove(self, entry: Entry) -> None:
        """Takes out `entry`, wherever it stands. Raises ValueError if it is not there."""
        lane = self._lanes[entry.lane]
        flow = lane.busy.get(entry.key_id)
        if flow is None:
            raise ValueError("the entry is not in the queue")
        flow.entries.remove(entry)
        self._count(lane, flow, entry, -1)
        if not flow.entries:
            del lane.busy[entry.key_id]

    def correct(self, entry: Entry, cost: float) -> None:
        """`entry`, which was served, really cost `cost`."""
        difference = cost - entry.cost
        if not difference:
            return
        lane = self._lanes[entry.lane]
        lane.finish += difference / lane.weight
        lane.start += difference / lane.weight  # means nothing while nothing of the class waits
        flow = self._flow(lane, entry)
        flow.finish += difference / flow.weight
        if flow.entries:
            self._place(lane, entry.key_id, flow, flow.start + difference / flow.weight)

    def of_key(self, entry: Entry) -> tuple[int, int]:
        """How many entries of the key of `entry` wait in its class, and their tokens."""
        flow = self._lanes[entry.lane].busy.get(entry.key_id)
        return (len(flow.entries), flow.tokens) if flow is not None else (0, 0)

    def cost_until(self, entry: Entry) -> float:
        """What would be served up to and with `entry` if it were pushed now, at most, as nobody overtakes."""
        lane = self._lanes[entry.lane]
        flow = lane.busy.get(entry.key_id)
        own = entry.cost + (flow.cost if flow is not None else 0.0)
        share = own / entry.weight
        total = own
        for other in lane.busy.values():
            if other is not flow:
                total += min(other.cost, share * other.weight)
        share = total / lane.weight
        return total + sum(min(other.cost, share * other.weight) for other in self._lanes if other is not lane)

    def waiting_of(self, lane: int) -> int:
        return self._lanes[lane].waiting

    def longest(self) -> Entry:
        """The last entry of the longest queue of the class that has most waiting for its weight."""
        return self._tail(
            max((lane for lane in self._lanes if lane.waiting), key=lambda lane: lane.waiting / lane.weight)
        )

    def pushed_out_by(self, entry: Entry) -> Entry | None:
        """Who has to go so that `entry` can wait; None where nobody takes up more of the queue than it would."""
        last = self.longest()
        lane, theirs = self._lanes[entry.lane], self._lanes[last.lane]
        if theirs is not lane:
            if theirs.waiting / theirs.weight > (lane.waiting + 1) / lane.weight:
                return last
            if not lane.waiting:
                return None
            last = self._tail(lane)
        return last if self.of_key(last)[0] > self.of_key(entry)[0] + 1 else None

    def _tail(self, lane: _Lane) -> Entry:
        return max(lane.busy.values(), key=lambda flow: len(flow.entries)).entries[-1]

    def _flow(self, lane: _Lane, entry: Entry) -> _Flow:
        flow = lane.flows.get(entry.key_id)
        if flow is None:
            if len(lane.flows) >= max(_FORGET_ABOVE, 2 * len(lane.busy)):
                self._sweep(lane)
            flow = lane.flows[entry.key_id] = _Flow(entry.weight, lane.now)
        flow.weight = entry.weight
        return flow

    def _sweep(self, lane: _Lane) -> None:
        """Forgets keys that have nothing waiting: first those who would be lifted to the present anyway, else all."""
        kept = {key: flow for key, flow in lane.flows.items() if flow.entries or flow.finish > lane.now}
        if len(kept) > _FORGET_ABOVE // 2 + len(lane.busy):
            kept = dict(lane.busy)
        lane.flows = kept

    def _place(self, lane: _Lane, key_id: str, flow: _Flow, start: float) -> None:
        flow.start, flow.mark = start, next(self._marks)
        if len(lane.heap) > 64 + 4 * len(lane.busy):
            lane.heap = [(each.start, each.mark, key) for key, each in lane.busy.items() if each is not flow]
            heapq.heapify(lane.heap)
        heapq.heappush(lane.heap, (start, flow.mark, key_id))

    def _next(self, lane: _Lane) -> tuple[str, _Flow]:
        while True:
            _, mark, key_id = heapq.heappop(lane.heap)
            flow = lane.busy.get(key_id)
            if flow is not None and flow.mark == mark:
                return key_id, flow

    def _go_on(self, lane: _Lane, key_id: str, flow: _Flow, start: float) -> None:
        if flow.entries:
            self._place(lane, key_id, flow, start)
        else:
            del lane.busy[key_id]

    def _count(self, lane: _Lane, flow: _Flow, entry: Entry, by: int) -> None:
        self.waiting += by
        self.tokens += by * entry.tokens
        lane.waiting += by
        lane.cost = lane.cost + by * entry.cost if lane.waiting else 0.0
        flow.cost += by * entry.cost
        flow.tokens += by * entry.tokens
