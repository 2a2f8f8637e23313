"""Maximal marginal relevance: hits that add something to those before them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from parkway.retrieval.ranking.candidate import Ranked


def diverse(ranked: Sequence[Ranked], limit: int, diversity: float) -> list[Ranked]:
    """The first `limit` of `ranked`, chosen one by one by relevance and by how little those chosen say of it.

    Args:
        ranked: The best first.
        diversity: 0 to 1: the weight of what is new; at 0 the order stays.

    Source: Carbonell and Goldstein, "The Use of MMR, Diversity-Based Reranking", SIGIR 1998.
    """
    if diversity <= 0 or len(ranked) < 2:
        return list(ranked[:limit])
    scores = np.array([one.score for one in ranked])
    relevance = (scores - scores.min()) / max(float(np.ptp(scores)), 1e-9)
    vectors = np.stack([one.vector for one in ranked])
    nearest = np.zeros(len(ranked))
    left = np.ones(len(ranked), bool)
    chosen: list[Ranked] = []
    while len(chosen) < min(limit, len(ranked)):
        values = np.where(left, (1 - diversity) * relevance - diversity * nearest, -np.inf)
        at = int(np.argmax(values))
        chosen.append(ranked[at])
        left[at] = False
        nearest = np.maximum(nearest, vectors @ vectors[at])
    return chosen
