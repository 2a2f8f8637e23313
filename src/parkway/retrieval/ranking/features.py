"""What a ranker sees of the passages that were found for a query."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np

from parkway.retrieval.index.index import Vectors
from parkway.retrieval.ranking.candidate import Ranked
from parkway.retrieval.ranking.fusion import Numbers, standard
from parkway.retrieval.ranking.reading import Reading

NAMES = ("keyword", "meaning", "both", "document", "coverage", "near")
"""Columns, in this order:

keyword, meaning: BM25 and cosine as distances from the mean of what was found, in standard deviations.
both: The lesser of these two.
document: The cosine of the query and the mean of what was found of the passage's document, standardised as above.
coverage: The share of the query's terms that the passage has, its headings and title included.
near: The share of the query's neighbouring terms that are neighbours in the passage, too, at most one word apart.
"""

_SLICE = 32
"""Passages that are read before the time is looked at again."""


def features(
    query: str, vector: Vectors, found: Sequence[Ranked], reading: Reading, late: Callable[[], bool]
) -> Numbers | None:
    """float64 [passages, features], or None where it is late before they are there."""
    keyword = standard(np.array([one.keyword for one in found]))
    meaning = standard(np.array([one.meaning for one in found]))
    compare = _Words(query, reading)
    words: list[tuple[float, float]] = []
    for start in range(0, len(found), _SLICE):
        if late():
            return None
        words += [compare(one) for one in found[start : start + _SLICE]]
    coverage, near = (np.array(column) for column in zip(*words, strict=True))
    both = np.minimum(keyword, meaning)
    return np.stack([keyword, meaning, both, _document(vector, found), coverage, near], axis=1)


class _Words:
    """Compares passages with the words of a query."""

    def __init__(self, query: str, reading: Reading) -> None:
        self._reading = reading
        sequence = reading.terms(query)
        self._terms = frozenset(sequence)
        self._pairs = frozenset((a, b) for a, b in pairwise(sequence) if a != b)

    def __call__(self, one: Ranked) -> tuple[float, float]:
        """Coverage, and that of neighbours."""
        terms = self._reading.terms(f"{one.passage.title}\n{one.passage.searched}")
        near = 0
        if self._pairs:
            beside = {*pairwise(terms), *zip(terms, terms[2:], strict=False)}
            near = sum((a, b) in beside or (b, a) in beside for a, b in self._pairs)
        covered = len(self._terms.intersection(terms))
        return covered / max(1, len(self._terms)), near / max(1, len(self._pairs))


def _document(vector: Vectors, found: Sequence[Ranked]) -> Numbers:
    places: dict[str, list[int]] = {}
    for at, one in enumerate(found):
        places.setdefault(one.passage.document_id, []).append(at)
    vectors = np.stack([one.vector for one in found])
    cosines = np.zeros(len(found))
    for together in places.values():
        mean = vectors[together].mean(axis=0)
        cosines[together] = float(mean @ vector) / max(float(np.linalg.norm(mean)), 1e-9)
    return standard(cosines)
