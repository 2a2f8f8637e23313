"""Passages that say the same in the same words: one of them is enough."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Sequence

import numpy as np

from parkway.retrieval.ranking.candidate import Ranked

COSINE = 0.97
SHARED = 0.8
"""Of the shingles of the shorter one, so many are in the other: a passage with a sentence more is the same passage."""

SHINGLE_WORDS = 3
LEAST_SHARED_LENGTH = 0.5
"""Of very different lengths, the shorter one is an excerpt and no duplicate."""

_WORD = re.compile(r"\w+")
_SIGN = re.compile(r"(?<!\w)[-+−]?\d+(?:[.,]\d+)*|\d+(?:[.,]\d+)*|!=|[<>=≠≤≥±%€$£¥°&^~]|(?<=\w)(?:\+\+|#)")
"""Numbers, and marks that say something else in their place: -5 and 5, C++ and C#, a < b and a > b."""


def without_duplicates(ranked: Sequence[Ranked]) -> Iterator[Ranked]:
    """In the order given, without those that say what one before them says.

    The same is what has the same content hash, or the same words, or a vector whose cosine is above 0.97 and most runs
    of three words in common. The same numbers and signs belong to it, in the same order: a sentence with another number
    is near in meaning and not the same.
    """
    contents: set[str] = set()
    same_words: dict[str, list[Ranked]] = {}
    kept: list[tuple[Ranked, list[str]]] = []
    vectors = np.empty((len(ranked), len(ranked[0].vector) if ranked else 0), np.float32)
    for one in ranked:
        spelled = _WORD.findall(one.passage.text.lower())
        others = same_words.setdefault(" ".join(spelled) or one.passage.text, [])
        if one.passage.content in contents or any(_signs(one) == _signs(other) for other in others):
            continue
        near = np.flatnonzero(vectors[: len(kept)] @ one.vector > COSINE)
        if any(_same(one, spelled, *kept[at]) for at in near):
            continue
        if one.passage.content:
            contents.add(one.passage.content)
        others.append(one)
        vectors[len(kept)] = one.vector
        kept.append((one, spelled))
        yield one


def _same(one: Ranked, words: list[str], other: Ranked, others: list[str]) -> bool:
    shorter, longer = sorted((_shingles(words), _shingles(others)), key=len)
    if len(shorter) < LEAST_SHARED_LENGTH * len(longer) or _signs(one) != _signs(other):
        return False
    return len(shorter & longer) >= SHARED * len(shorter)


def _shingles(words: list[str]) -> frozenset[int]:
    last = max(1, len(words) - SHINGLE_WORDS + 1)
    return frozenset(zlib.crc32(" ".join(words[at : at + SHINGLE_WORDS]).encode()) for at in range(last))


def _signs(one: Ranked) -> tuple[str, ...]:
    return tuple(_SIGN.findall(one.passage.text))
