"""How sure a search is once a cross-encoder has read what it found.

Where an answer was read, its score stands far above the others'; of near misses none stands out. So the lead of the
best tells the two apart better than anything that a ranker sees without reading.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from parkway.retrieval.ranking.train import logistic

LEAST_READ = 5
"""Of fewer scores nothing is said."""

LEAST_SEEN = 40
"""Searches that it takes to learn from, of both kinds."""

_PRIOR = np.array([1.0, 0.0, 0.0])
_PULL = np.array([1.0, 1.0, 1e-6])


class Sureness(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A logistic regression; as it begins, it changes nothing.

    Attributes:
        before: The weight of the confidence that there was before, as log odds.
        lead: Of how far the highest score is above their mean.
    """

    before: float = 1.0
    lead: float = 0.0
    bias: float = 0.0

    def of(self, confidence: float, scores: Sequence[float]) -> float:
        """The probability that the answer was found: 0 to 1.

        Args:
            confidence: That of the ranker.
            scores: Of what was read, as many as there was time for.
        """
        if not self.lead or len(scores) < LEAST_READ:
            return confidence
        before, lead, _ = _signs(confidence, scores)
        total = self.before * before + self.lead * lead + self.bias
        return round(1 / (1 + math.exp(-min(max(total, -50.0), 50.0))), 4)


@dataclass(frozen=True, slots=True)
class Seen:
    """A search whose outcome is known.

    Attributes:
        confidence, scores: As of `Sureness.of`.
        right: Whether the answer was found.
    """

    confidence: float
    scores: Sequence[float]
    right: bool


def learned(seen: Sequence[Seen]) -> Sureness:
    """What fits these, held near what there was before; of too few the one that changes nothing."""
    read = [each for each in seen if len(each.scores) >= LEAST_READ]
    if len(read) < LEAST_SEEN or len({each.right for each in read}) < 2:
        return Sureness()
    signs = np.array([_signs(each.confidence, each.scores) for each in read])
    weights = logistic(signs, np.array([each.right for each in read], float), _PRIOR, _PULL)
    before, lead, bias = (round(float(each), 4) for each in weights)
    return Sureness(before=before, lead=lead, bias=bias) if before >= 0 and lead > 0 else Sureness()


def _signs(confidence: float, scores: Sequence[float]) -> tuple[float, float, float]:
    within = min(max(confidence, 1e-4), 1 - 1e-4)
    return math.log(within / (1 - within)), max(scores) - sum(scores) / len(scores), 1.0
