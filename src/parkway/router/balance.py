"""Which of several usable endpoints gets the next request."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from parkway.router.candidate import Candidate


class Balancer(Protocol):
    """Chooses one of at least one candidate."""

    def pick(self, candidates: Sequence[Candidate]) -> Candidate: ...


class SmoothWeightedRoundRobin:
    """Shares by weight, and never gives a heavy endpoint its whole share in one burst.

    Weights 5, 1, 1 make a a b a c a a, not a a a a a b c.
    Source: nginx, commit 52327e0627f4 ("Upstream: smooth weighted round-robin balancing").
    """

    def pick(self, candidates: Sequence[Candidate]) -> Candidate:
        best = candidates[0]
        total = 0
        for candidate in candidates:
            weight = candidate.endpoint.weight
            candidate.credit += weight
            total += weight
            if candidate.credit > best.credit:
                best = candidate
        best.credit -= total
        return best


class LeastOutstanding:
    """The fewest requests in flight for its weight.

    Unlike round-robin it needs no guess of how long a request takes: a slow endpoint keeps its requests longer and
    so is asked less often. Ties, which are the rule on a quiet system, are shared by weight.
    """

    def __init__(self) -> None:
        self._ties = SmoothWeightedRoundRobin()

    def pick(self, candidates: Sequence[Candidate]) -> Candidate:
        loads = [candidate.outstanding / candidate.endpoint.weight for candidate in candidates]
        least = min(loads)
        tied = [candidate for candidate, load in zip(candidates, loads, strict=True) if load == least]
        return tied[0] if len(tied) == 1 else self._ties.pick(tied)


BALANCERS: Mapping[str, Callable[[], Balancer]] = {
    "least_outstanding": LeastOutstanding,
    "weighted_round_robin": SmoothWeightedRoundRobin,
}
