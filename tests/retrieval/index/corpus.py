"""Passages for tests of the index, and what should be found of them, worked out in plain Python."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

from parkway.retrieval.document import EVERYONE, Passage, content_hash, passage_id
from parkway.retrieval.index.index import Between, Filter

DIMENSIONS = 16


def passage(number: int, *, document: str | None = None, version: str = "1", text: str = "", **more: Any) -> Passage:
    """The passage with this number; ten make a document."""
    document_id = document if document is not None else f"d{number // 10}"
    text = text or f"passage number w{number}"
    return Passage(
        passage_id=passage_id(document_id, version, number % 10),
        document_id=document_id,
        version=version,
        ordinal=number % 10,
        text=text,
        start=0,
        end=len(text),
        content=content_hash("model", f"{number} {text}"),
        **more,
    )


def vectors(count: int, *, seed: int = 0, dimensions: int = DIMENSIONS) -> np.ndarray:
    """Vectors in clusters that overlap."""
    random = np.random.default_rng(seed)
    centres = random.standard_normal((max(4, int(count**0.5)), dimensions))
    found = centres[random.integers(0, len(centres), count)] + 0.7 * random.standard_normal((count, dimensions))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def allowed(one: Passage, wanted: Filter) -> bool:
    """Whether a search with this filter may find the passage."""
    if not wanted.principals or not set(one.access) & (wanted.principals | {EVERYONE}):
        return False
    if wanted.documents is not None and one.document_id not in wanted.documents:
        return False
    if wanted.passages is not None and one.passage_id not in wanted.passages:
        return False
    return all(name in one.metadata and _holds(one.metadata[name], test) for name, test in wanted.metadata.items())


def nearest(
    passages: Sequence[Passage], rows: np.ndarray, vector: np.ndarray, wanted: Filter, depth: int
) -> list[tuple[str, float]]:
    """The ids and scores of the nearest that may be found."""
    scores = rows @ vector
    found = [
        (one.passage_id, float(score)) for one, score in zip(passages, scores, strict=True) if allowed(one, wanted)
    ]
    return sorted(found, key=lambda pair: -pair[1])[:depth]


def _holds(value: Any, test: Any) -> bool:
    return any(_single_holds(one, test) for one in (value if isinstance(value, list) else [value]))


def _single_holds(one: Any, test: Any) -> bool:
    if isinstance(test, Between):
        return _within(one, test)
    options: Iterable[Any] = test if isinstance(test, tuple) else (test,)
    singles = [single for option in options for single in (option if isinstance(option, list) else [option])]
    return any(isinstance(one, bool) == isinstance(single, bool) and one == single for single in singles)


def _within(one: Any, test: Between) -> bool:
    ends = [end for end in (test.at_least, test.at_most) if end is not None]
    of_dates = isinstance(ends[0], str)
    if isinstance(one, bool) or isinstance(one, str) != of_dates:
        return False
    number = _seconds(one) if of_dates else float(one)
    low = -math.inf if test.at_least is None else _seconds(test.at_least) if of_dates else float(test.at_least)
    high = math.inf if test.at_most is None else _seconds(test.at_most) if of_dates else float(test.at_most)
    return number is not None and low <= number <= high


def _seconds(text: Any) -> Any:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
