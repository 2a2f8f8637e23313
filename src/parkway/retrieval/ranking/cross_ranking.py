"""The second look: a cross-encoder reads the first of what was ranked."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from parkway.retrieval.ranking.candidate import Ranked
from parkway.retrieval.ranking.fusion import standard
from parkway.retrieval.ranking.sureness import Sureness

Scores = Callable[[str, Sequence[str], float], Sequence[float]]
"""How well each text answers the query, in their order; only of the first ones where the seconds were over. Blocks."""


class CrossRanking:
    """Orders the first passages by their rank and the score of a cross-encoder together. Threads may use it at once.

    Both count as distances from the mean of what was read, in standard deviations: by itself a cross-encoder that few
    judgements have trained is worse than what it corrects, on subjects that it does not know.
    """

    def __init__(self, scores: Scores, weight: float, depth: int, sureness: Sureness | None = None) -> None:
        """
        Args:
            weight: Of its score, beside 1 of the rank.
            depth: So many are read at most.
            sureness: What was learned of its scores.
        """
        self._scores = scores
        self._weight = weight
        self._depth = depth
        self._sureness = sureness or Sureness()

    def order(
        self, query: str, ranked: Sequence[Ranked], seconds: float, *, explain: bool
    ) -> tuple[list[Ranked], bool]:
        """The best first, and whether there was time for all.

        What there was no time to read stays where it was, behind what was read.

        The ranks that were given stay the same, too, and are given out anew: so they can still be compared with those
        of what was not read, and of other collections.

        Args:
            ranked: By the ranker, the best first.
            explain: Whether what was read gets its score, `cross_encoder`, and what that adds to its rank.
        """
        first = list(ranked[: self._depth])
        scores = self._scores(query, [one.passage.searched for one in first], seconds)
        read, rest = first[: len(scores)], ranked[len(scores) :]
        ranks = [one.score for one in read]
        both = standard(np.array(ranks)) + self._weight * standard(np.array(scores))
        ordered: list[Ranked] = []
        for at, rank in zip(np.argsort(-both, kind="stable").tolist(), ranks, strict=True):
            one = read[at]
            one.read = scores[at]
            if explain:
                moved = {"cross_encoder": round(scores[at], 6), "cross_encoder_weighs": round(rank - one.score, 6)}
                one.explanation = (one.explanation or {}) | moved
            one.rank = rank
            ordered.append(one)
        return [*ordered, *rest], len(read) == len(first)

    def confidence(self, before: float, ranked: Sequence[Ranked]) -> float:
        """How sure a search is when these were read, if they were.

        Args:
            before: That of the ranker.
        """
        return self._sureness.of(before, [one.read for one in ranked if one.read is not None])
