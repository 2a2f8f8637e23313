"""The words of a text as a sparse vector: BM25 that every store can compute by an inner product."""

from __future__ import annotations

import re
import zlib
from collections import Counter
from dataclasses import dataclass

from qdrant_edge import Bm25, Bm25Config, DisabledStemmer, StopwordsSet, TokenizerType

K1, B, AVERAGE_TERMS = 1.5, 0.75, 150.0
"""Saturation, normalisation by length, length of a usual passage: nDCG@10 of 0.70 on SciFact's training queries."""

MAX_QUERY_CHARACTERS = 4096
MAX_QUERY_TERMS = 256

# Scripts that are written without spaces, or (Korean) with endings that no stemmer here cuts off: Han, kana, Hangul.
_UNSPACED = re.compile(
    "[\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003134f]+"
)


@dataclass(frozen=True, slots=True)
class Terms:
    """A sparse vector: `indices` in ascending order, and the weight of each."""

    indices: list[int]
    weights: list[float]


class Words:
    """Turns texts into terms. Indexing and searching must use the same language.

    A term is a hash of 31 bits of a stem. The score of a passage for a query is the sum over the query's terms of
    `weight * idf(term)`, where `idf = ln(1 + (N - n + 0.5) / (n + 0.5))` for the n of N passages that have it: the
    store counts those. Source: Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond", 2009.

    Chinese, Japanese and Korean are cut into words by a dictionary, which may cut a query other than a passage; so
    pairs of neighbouring characters are terms, too.
    """

    def __init__(self, language: str) -> None:
        """
        Args:
            language: One of `config.Language`.
        """
        plain = {"stopwords": StopwordsSet(), "stemmer": DisabledStemmer()} if language == "none" else {}
        self._model = Bm25(
            Bm25Config(
                k=K1,
                b=B,
                avg_len=AVERAGE_TERMS,
                tokenizer=TokenizerType.Multilingual,
                language=None if plain else language,
                **plain,  # pyright: ignore[reportArgumentType]
            )
        )

    def of_passage(self, text: str) -> Terms:
        """The terms of a text, each with the part of BM25 that does not depend on other passages."""
        sparse = self._model.embed_document(text)
        weights = dict(zip(sparse.indices, sparse.values, strict=True))
        pairs = Counter(_pairs(text))
        # Half of a pair's characters are its neighbour's: the pairs count half in the text's length.
        normal = K1 * (1 - B + B * (len(weights) + pairs.total() / 2) / AVERAGE_TERMS)
        for term, count in pairs.items():
            weights[term] = count * (K1 + 1) / (count + normal)
        return _sorted(weights)

    def of_query(self, text: str) -> Terms:
        """The terms that are looked for, each with weight 1; of a very long text those of its beginning."""
        text = text[:MAX_QUERY_CHARACTERS].encode("utf-8", "replace").decode()
        terms = dict.fromkeys([*self._model.embed_query(text).indices, *_pairs(text)], 1.0)
        return _sorted(dict(list(terms.items())[:MAX_QUERY_TERMS]))


def _pairs(text: str) -> list[int]:
    """A term for each two neighbouring characters of scripts without spaces, and for each that stands alone."""
    if text.isascii():
        return []
    return [
        zlib.crc32(pair.encode()) >> 1
        for run in _UNSPACED.findall(text)
        for pair in ([run] if len(run) == 1 else [run[at : at + 2] for at in range(len(run) - 1)])
    ]


def _sorted(weights: dict[int, float]) -> Terms:
    items = sorted(weights.items())
    return Terms([index for index, _ in items], [weight for _, weight in items])
