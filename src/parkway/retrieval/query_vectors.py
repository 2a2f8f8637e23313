"""The vectors of queries; those that are asked again and again are made once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from parkway.core.errors import InvalidRequest
from parkway.retrieval.index.index import Vectors
from parkway.retrieval.kept import Kept, Tally

Embed = Callable[[Sequence[str]], Vectors]
"""Vectors of texts: float32 [texts, dimensions], rows of length 1.

It blocks. What the encoder does not read is cut off.
"""

_MOST_BYTES = 256 << 20


class QueryVectors:
    """Makes vectors of queries and keeps the latest. Threads may ask at once.

    A vector depends on the encoder alone, so none is ever out of date.
    """

    def __init__(self, embed: Embed, keep: int, tally: Tally | None = None) -> None:
        """
        Args:
            keep: How many.
        """
        self._embed = embed
        self._kept: Kept[Vectors] = Kept(keep, _MOST_BYTES, lambda vector: vector.nbytes, tally)

    @property
    def tally(self) -> Tally:
        return self._kept.tally

    def of(self, text: str) -> Vectors:
        """float32 [dimensions].

        Raises:
            InvalidRequest: The encoder has no vector for it.
        """
        told = text.encode("utf-8", "replace")

        def make() -> tuple[Any, bool]:
            vector = np.asarray(self._embed([told.decode()])[0], np.float32)
            if not np.isfinite(vector).all():
                raise InvalidRequest("the encoder has no vector for this query", param="query")
            vector.setflags(write=False)
            return vector, True

        return self._kept.of(hashlib.blake2b(told, digest_size=16).digest(), make)[0]
