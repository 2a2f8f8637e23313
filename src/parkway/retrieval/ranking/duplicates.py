"""Passages that say the same in the same words: one of them is enough."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator

import numpy as np

from parkway.retrieval.ranking.candidate import Ranked

COSINE = 0.97
SHARED = 0.8
"""Of the shingles of the shorter one, so many are in the other: a passage with a sentence more is the same passage."""

SHINGLE_WORDS = 3
LEAST_SHARED_LENGTH = 0.5
"""Of very different lengths, the shorter one is an excerpt and no duplicate."""

_WORD = re.compile(r"\w+")


def without_duplicates(ranked: Iterable[Ranked]) -> Iterator[Ranked]:
    """In the order given, without those that say what one before them says.

    The same is what has the same content hash, or the same words, or a vector whose cosine is above 0.97 and most runs
    of three words in common: a sentence with another number is near in meaning and not the same.
    """
    contents: set[str] = set()
    words: set[str] = set()
    kept: list[tuple[Ranked, frozenset[int]]] = []
    for one in ranked:
        spelled = _WORD.findall(one.passage.text.lower())
        joined = " ".join(spelled) or one.passage.text
        if one.passage.content in contents or joined in words:
            continue
        shingles = _shingles(spelled)
        if any(_same(one, shingles, other, others) for other, others in kept):
            continue
        if one.passage.content:
            contents.add(one.passage.content)
        words.add(joined)
        kept.append((one, shingles))
        yield one


def _shingles(words: list[str]) -> frozenset[int]:
    last = max(1, len(words) - SHINGLE_WORDS + 1)
    return frozenset(zlib.crc32(" ".join(words[at : at + SHINGLE_WORDS]).encode()) for at in range(last))


def _same(one: Ranked, shingles: frozenset[int], other: Ranked, others: frozenset[int]) -> bool:
    shorter, longer = sorted((len(shingles), len(others)))
    if shorter < LEAST_SHARED_LENGTH * longer or float(np.dot(one.vector, other.vector)) <= COSINE:
        return False
    return _numbers(one) == _numbers(other) and len(shingles & others) >= SHARED * shorter


def _numbers(one: Ranked) -> set[str]:
    return set(re.findall(r"\d+", one.passage.text))
