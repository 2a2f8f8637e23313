"""Which of several usable endpoints gets the next request.

The cost of a pick does not grow with the number of endpoints, or with its logarithm only: `arrange` is told when an
endpoint joins or leaves, `moved` when its requests in flight change.
"""

from __future__ import annotations

import heapq
import itertools
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from parkway.router.affinity import PrefixAffinity
from parkway.router.candidate import Candidate
from parkway.router.config import RouterConfig

_ROUND_OF_SINGLES = 16


class Balancer(Protocol):
    """Chooses among the endpoints of one model."""

    def arrange(self, everyone: Sequence[Candidate], usable: Sequence[Candidate]) -> None:
        """Says which endpoints there are, and which of them `pick` chooses from: at least one."""
        ...

    def moved(self, candidate: Candidate) -> None:
        """The requests in flight of `candidate` have changed."""
        ...

    def pick(self, body: bytes, in_flight: int) -> Candidate:
        """One of the usable ones, for a request with this body while the model has `in_flight` requests."""
        ...


class SmoothWeightedRoundRobin:
    """Shares by weight, and never gives a heavy endpoint its whole share in one burst.

    Weights 5, 1, 1 make a a b a c a a, not a a a a a b c. In a large fleet endpoints of one weight take turns among
    themselves, so that the cost grows with the number of different weights.
    Source: nginx, commit 52327e0627f4 ("Upstream: smooth weighted round-robin balancing").
    """

    def __init__(self) -> None:
        self._turns: list[_Turn] = []
        self._total = 0

    def arrange(self, everyone: Sequence[Candidate], usable: Sequence[Candidate]) -> None:  # noqa: ARG002
        groups: dict[object, list[Candidate]] = {}
        for candidate in usable:
            alone = len(usable) <= _ROUND_OF_SINGLES
            groups.setdefault(candidate if alone else candidate.endpoint.weight, []).append(candidate)
        self._turns = [_Turn(members) for members in groups.values()]
        self._total = sum(turn.weight for turn in self._turns)

    def moved(self, candidate: Candidate) -> None:
        pass

    def pick(self, body: bytes, in_flight: int) -> Candidate:  # noqa: ARG002
        best = self._turns[0]
        for turn in self._turns:
            turn.credit += turn.weight
            if turn.credit > best.credit:
                best = turn
        best.credit -= self._total
        return best.next()


class _Turn:
    """Endpoints of one weight that take turns."""

    __slots__ = ("_at", "_members", "credit", "weight")

    def __init__(self, members: list[Candidate]) -> None:
        self._members = members
        self._at = -1
        self.weight = sum(candidate.endpoint.weight for candidate in members)
        self.credit = 0

    def next(self) -> Candidate:
        self._at = (self._at + 1) % len(self._members)
        return self._members[self._at]


class LeastOutstanding:
    """The fewest requests in flight for its weight.

    Unlike round-robin it needs no guess of how long a request takes: a slow endpoint keeps its requests longer and
    so is asked less often. Ties, which are the rule on a quiet system, are shared by weight: each pick moves an
    endpoint's turn on by 1/weight, and the earliest turn is next (Waldspurger, Weihl, "Stride Scheduling", 1995).

    A heap whose outdated entries are dropped when they come to the top.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, float, int, Candidate]] = []
        self._usable: Sequence[Candidate] = ()
        self._entries: dict[Candidate, tuple[float, float, int, Candidate]] = {}
        self._count = itertools.count()
        self._clock = 0.0

    def arrange(self, everyone: Sequence[Candidate], usable: Sequence[Candidate]) -> None:  # noqa: ARG002
        self._usable = usable
        turns = {candidate: entry[1] for candidate, entry in self._entries.items()}
        self._entries = {
            candidate: self._entry(candidate, max(self._clock, turns.get(candidate, 0.0))) for candidate in usable
        }
        self._heap = list(self._entries.values())
        heapq.heapify(self._heap)

    def moved(self, candidate: Candidate) -> None:
        entry = self._entries.get(candidate)
        if entry is None:
            return
        if len(self._heap) > 4 * len(self._usable) + 64:
            self.arrange((), self._usable)
        entry = self._entries[candidate] = self._entry(candidate, max(self._clock, entry[1]))
        heapq.heappush(self._heap, entry)

    def pick(self, body: bytes, in_flight: int) -> Candidate:  # noqa: ARG002
        heap, entries = self._heap, self._entries
        while entries[heap[0][3]] is not heap[0]:
            heapq.heappop(heap)
        candidate = heap[0][3]
        self._clock = max(self._clock, heap[0][1])
        entry = entries[candidate] = self._entry(candidate, self._clock + 1 / candidate.endpoint.weight)
        heapq.heapreplace(heap, entry)
        return candidate

    def _entry(self, candidate: Candidate, turn: float) -> tuple[float, float, int, Candidate]:
        return (candidate.outstanding / candidate.endpoint.weight, turn, next(self._count), candidate)


class PowerOfTwoChoices:
    """Two at random, in proportion to their weights; of them the one with fewer requests in flight for its weight.

    Several gateways that each see only their own requests do not all run to the same endpoint, as they do with the
    least of all. Source: Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001.
    """

    def __init__(self) -> None:
        self._usable: Sequence[Candidate] = ()
        self._weights: list[int] | None = None

    def arrange(self, everyone: Sequence[Candidate], usable: Sequence[Candidate]) -> None:  # noqa: ARG002
        self._usable = usable
        weights = [candidate.endpoint.weight for candidate in usable]
        self._weights = list(itertools.accumulate(weights)) if len(set(weights)) > 1 else None

    def moved(self, candidate: Candidate) -> None:
        pass

    def pick(self, body: bytes, in_flight: int) -> Candidate:  # noqa: ARG002
        one, two = self._two()
        return one if self._load(one) <= self._load(two) else two

    def _two(self) -> tuple[Candidate, Candidate]:
        usable = self._usable
        if self._weights is not None:
            one, two = random.choices(usable, cum_weights=self._weights, k=2)  # noqa: S311 - a choice, not a secret
            return one, two
        if len(usable) == 1:
            return usable[0], usable[0]
        first = int(random.random() * len(usable))  # noqa: S311
        second = int(random.random() * (len(usable) - 1))  # noqa: S311
        return usable[first], usable[second + (second >= first)]

    def _load(self, candidate: Candidate) -> float:
        return candidate.outstanding / candidate.endpoint.weight


class LatencyAware(PowerOfTwoChoices):
    """Two at random; of them the one that is expected to answer sooner: its recent time to an answer, times the
    requests that it would then have, for its weight.

    Source: Finagle's and linkerd's balancer, power of two choices with peak EWMA; see `latency.py`.
    """

    def _load(self, candidate: Candidate) -> float:
        # One that was never asked counts as fast, until it has requests without having answered any.
        seconds = candidate.latency.at(time.monotonic()) or (_UNKNOWN_S if candidate.outstanding else 0.0)
        return seconds * (candidate.outstanding + 1) / candidate.endpoint.weight


_UNKNOWN_S = 3600.0

BALANCERS: Mapping[str, Callable[[RouterConfig], Balancer]] = {
    "least_outstanding": lambda _: LeastOutstanding(),
    "weighted_round_robin": lambda _: SmoothWeightedRoundRobin(),
    "power_of_two_choices": lambda _: PowerOfTwoChoices(),
    "latency_aware": lambda _: LatencyAware(),
    "prefix_affinity": lambda config: PrefixAffinity(config.affinity),
}
