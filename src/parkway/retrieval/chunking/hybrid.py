"""A search in chunks that are not in an index: by words and by meaning, fused. For comparing chunkers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from parkway.retrieval.chunking.evaluation import MakeSearch, Search
from parkway.retrieval.index.words import Words
from parkway.retrieval.query_vectors import Embed
from parkway.retrieval.ranking.fusion import RRF_K

DEPTH = 100
"""Of each list."""


def hybrid(embed: Embed, language: str = "english") -> MakeSearch:
    """A search as the index has it before it is ranked: BM25 and cosine over all chunks, reciprocal rank fusion."""
    words = Words(language)

    def make(searched: Sequence[str]) -> Search:
        by_words, stored = _by_words(words, searched), embed(searched)

        def search(questions: Sequence[str]) -> list[list[int]]:
            answers: list[list[int]] = []
            for question, vector in zip(questions, embed(questions), strict=True):
                by_meaning = np.argsort(-(stored @ vector), kind="stable")[:DEPTH].tolist()
                fused: dict[int, float] = {}
                for ranked in (by_words(question), by_meaning):
                    for rank, number in enumerate(ranked, 1):
                        fused[number] = fused.get(number, 0.0) + 1 / (RRF_K + rank)
                answers.append(sorted(fused, key=lambda number: (-fused[number], number)))
            return answers

        return search

    return make


def _by_words(words: Words, searched: Sequence[str]) -> Callable[[str], list[int]]:
    lists: dict[int, list[tuple[int, float]]] = {}
    for number, text in enumerate(searched):
        terms = words.of_passage(text)
        for term, weight in zip(terms.indices, terms.weights, strict=True):
            lists.setdefault(term, []).append((number, weight))

    def ranked(question: str) -> list[int]:
        scores = np.zeros(len(searched))
        for term in words.of_query(question).indices:
            found = lists.get(term, [])
            rarity = math.log(1 + (len(searched) - len(found) + 0.5) / (len(found) + 0.5))
            for number, weight in found:
                scores[number] += weight * rarity
        return [int(number) for number in np.argsort(-scores, kind="stable")[:DEPTH] if scores[number] > 0]

    return ranked
