"""The vectors of queries; those that are asked again and again are made once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence

import numpy as np

from parkway.core.errors import InvalidRequest
from parkway.retrieval.index.index import Vectors

Embed = Callable[[Sequence[str]], Vectors]
"""Vectors of texts: float32 [texts, dimensions], rows of length 1.

It blocks. What the encoder does not read is cut off.
"""


class QueryVectors:
    """Makes vectors of queries and keeps the latest. Threads may ask at once.

    A vector depends on the encoder alone, so none is ever out of date.

    Attributes:
        hits, misses: How many queries had a vector already, and how many had none.
    """

    def __init__(self, embed: Embed, keep: int) -> None:
        """
        Args:
            keep: How many.
        """
        self._embed = embed
        self._keep = keep
        self._kept: OrderedDict[str, Vectors] = OrderedDict()
        self._lock = threading.Lock()
        self.hits = 0
        self.misses = 0

    def of(self, text: str) -> Vectors:
        """float32 [dimensions].

        Raises:
            InvalidRequest: The encoder has no vector for it.
        """
        text = text.encode("utf-8", "replace").decode()
        with self._lock:
            if (vector := self._kept.get(text)) is not None:
                self._kept.move_to_end(text)
                self.hits += 1
                return vector
            self.misses += 1
        vector = np.asarray(self._embed([text])[0], np.float32)
        if not np.isfinite(vector).all():
            raise InvalidRequest("the encoder has no vector for this query", param="query")
        vector.setflags(write=False)
        with self._lock:
            self._kept[text] = vector
            while len(self._kept) > self._keep:
                self._kept.popitem(last=False)
        return vector
