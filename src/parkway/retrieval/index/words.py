"""The words of a text as a sparse vector: BM25 that every store can compute by an inner product."""

from __future__ import annotations

import re
import zlib
from collections import Counter
from dataclasses import dataclass

import numpy as np
from qdrant_edge import Bm25, Bm25Config, DisabledStemmer, StopwordsSet, TokenizerType

K1, B, AVERAGE_TERMS = 1.5, 0.75, 150.0
"""Saturation, normalisation by length, length of a usual passage: nDCG@10 of 0.708 on SciFact's training queries."""

MASK = 0x7FFFFFFF
"""Terms have 31 bits: databases know no larger numbers of 4 bytes."""

MAX_QUERY_CHARACTERS = 4096
MAX_QUERY_TERMS = 256

_APART = "\u00a0\u180e\u2000\u2001\u2007\u200b\u202f\u205f|=~<>^$€"
_UNSEEN = (0xAD, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2060, 0x2070), 0xFEFF)
_SPELLING: dict[int, str | None] = {**dict.fromkeys(map(ord, _APART), " "), **dict.fromkeys(_UNSEEN), 0x2011: "-"}
"""What the tokenizer would make one word of with the words on both sides, or two of one: no-break spaces and hyphens,
soft hyphens, marks of direction; and signs as in `name=value` and `<tag>`."""
_NUMBER = re.compile(r"\d+")
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
    pairs of neighbouring characters are terms, too. So are numbers, which the tokenizer leaves out.
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
        text = text.translate(_SPELLING)
        sparse = self._model.embed_document(text)
        found, weights = np.array(sparse.indices, np.int64) & MASK, np.array(sparse.values)
        if more := Counter(_more(text)):
            # A character is in two pairs: they count half in the text's length.
            normal = K1 * (1 - B + B * (len(found) + more.total() / 2) / AVERAGE_TERMS)
            counts = np.fromiter(more.values(), np.float64, len(more))
            found = np.concatenate([np.fromiter(more, np.int64, len(more)), found])  # they hold where both are one
            weights = np.concatenate([counts * (K1 + 1) / (counts + normal), weights])
        found, first = np.unique(found, return_index=True)
        return Terms(found.tolist(), weights[first].tolist())

    def of_query(self, text: str) -> Terms:
        """The terms that are looked for, each with weight 1; of a very long text those of its beginning."""
        text = text[:MAX_QUERY_CHARACTERS].encode("utf-8", "replace").decode().translate(_SPELLING)
        found = [index & MASK for index in self._model.embed_query(text).indices]
        terms = sorted(list(dict.fromkeys([*found, *_more(text)]))[:MAX_QUERY_TERMS])
        return Terms(terms, [1.0] * len(terms))


def _more(text: str) -> list[int]:
    """A term for each number, and for each two neighbouring characters of scripts without spaces."""
    found: list[str] = _NUMBER.findall(text)
    if not text.isascii():
        for run in _UNSPACED.findall(text):
            found += [run] if len(run) == 1 else [run[at : at + 2] for at in range(len(run) - 1)]
    return [zlib.crc32(word.encode()) & MASK for word in found]
