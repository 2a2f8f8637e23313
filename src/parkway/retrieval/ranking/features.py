"""What a ranker sees of the passages that were found for a query."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from parkway.retrieval.index.index import Vectors
from parkway.retrieval.ranking.candidate import Ranked
from parkway.retrieval.ranking.fusion import Numbers, standard
from parkway.retrieval.ranking.reading import Reading

NAMES = ("keyword", "meaning", "both", "document")
"""Columns, in this order:

keyword, meaning: BM25 and cosine as distances from the mean of what was found, in standard deviations.
both: The lesser of these two.
document: The cosine of the query and the mean of what was found of the passage's document, standardised as above.

Tried and left out, as they did not help with questions that were held out: ranks, shares of the query's terms in the
passage and in its headings, neighbouring terms, numbers, length, the place in the document, the query moved towards the
best passages (relevance feedback).
"""


def features(vector: Vectors, found: Sequence[Ranked]) -> Numbers:
    """float64 [passages, features] of at least one passage."""
    keyword = standard(np.array([one.keyword for one in found]))
    meaning = standard(np.array([one.meaning for one in found]))
    return np.stack([keyword, meaning, np.minimum(keyword, meaning), _document(vector, found)], axis=1)


def _document(vector: Vectors, found: Sequence[Ranked]) -> Numbers:
    numbers: dict[str, int] = {}
    owners = np.array([numbers.setdefault(one.passage.document_id, len(numbers)) for one in found])
    by_owner = np.argsort(owners, kind="stable")
    starts = np.searchsorted(owners[by_owner], np.arange(len(numbers)))
    sums = np.add.reduceat(np.stack([found[at].vector for at in by_owner]), starts, dtype=np.float64)
    return standard((sums @ vector / np.maximum(np.linalg.norm(sums, axis=1), 1e-9))[owners])


class Wording:
    """Compares passages with the words of a query."""

    def __init__(self, query: str, reading: Reading) -> None:
        self._reading = reading
        sequence = reading.terms(query)
        self._terms = frozenset(sequence)
        self._pairs = frozenset((a, b) for a, b in pairwise(sequence) if a != b)

    def shared(self, one: Ranked) -> tuple[float, float]:
        """The share of the query's terms that the passage or its title has, and that of the query's neighbouring terms
        that are neighbours there, too, at most one word apart.
        """
        terms = self._reading.terms(f"{one.passage.title}\n{one.passage.searched}")
        near = 0
        if self._pairs:
            beside = {*pairwise(terms), *zip(terms, terms[2:], strict=False)}
            near = sum((a, b) in beside or (b, a) in beside for a, b in self._pairs)
        covered = len(self._terms.intersection(terms))
        return covered / max(1, len(self._terms)), near / max(1, len(self._pairs))
