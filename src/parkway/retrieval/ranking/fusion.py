"""Making one order of two lists whose scores cannot be compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from parkway.retrieval.ranking.candidate import Ranked

RRF_K = 60
"""Source: Cormack, Clarke and Buettcher, "Reciprocal Rank Fusion outperforms Condorcet", SIGIR 2009."""

Numbers = Any
"""A numpy array of floats."""


def fuse(found: Sequence[Ranked]) -> list[Ranked]:
    """Gives each its fused score; the best first, equals in the order of their ids.

    The sum over the lists that have it of `1 / (60 + its place in that list)`.
    """
    for one in found:
        one.fused = 0.0
    by_id = sorted(found, key=lambda one: one.passage.passage_id)
    by_words = sorted((one for one in by_id if one.by_keyword), key=lambda one: -one.keyword)
    by_meaning = sorted((one for one in by_id if one.by_meaning), key=lambda one: -one.meaning)
    for ranked in (by_words, by_meaning):
        for place, one in enumerate(ranked, 1):
            one.fused += 1 / (RRF_K + place)
    return sorted(by_id, key=lambda one: -one.fused)


def standard(scores: Numbers) -> Numbers:
    """Scores as distances from their mean, in standard deviations; all 0 where they are all the same."""
    spread = float(np.std(scores)) if len(scores) else 0.0
    return (scores - np.mean(scores)) / spread if spread > 1e-9 else np.zeros(len(scores))
