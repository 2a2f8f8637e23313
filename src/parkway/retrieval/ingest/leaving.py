"""Vectors of what was just removed: where a folder or a file was renamed, the same texts come again in a moment."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

_MOST_BYTES = 64 << 20
_KEEP_MS = 600_000


class Leaving:
    """In memory alone, without the texts, and not for long. For one thread."""

    def __init__(self, most_bytes: int = _MOST_BYTES, keep_ms: int = _KEEP_MS) -> None:
        """
        Args:
            most_bytes: Of vectors; with so many no more are kept until these have gone.
        """
        self._most_bytes = most_bytes
        self._keep_ms = keep_ms
        self._vectors: dict[str, Any] = {}
        self._bytes = 0
        self._until_ms = 0
        self.full = False
        """Whether there is room for no more."""

    def keep(self, vectors: Mapping[str, Any], now_ms: int) -> None:
        """Keeps vectors, by `Passage.content`, as long as there is room."""
        for content, vector in vectors.items():
            if content in self._vectors:
                continue
            self.full = self._bytes + vector.nbytes > self._most_bytes
            if self.full:
                return
            self._vectors[content] = vector
            self._bytes += vector.nbytes
            self._until_ms = now_ms + self._keep_ms

    def take(self, contents: Iterable[str]) -> dict[str, Any]:
        """Those that are kept; they are in the index from then on."""
        found: dict[str, Any] = {}
        for content in contents:
            if (vector := self._vectors.pop(content, None)) is not None:
                self._bytes -= vector.nbytes
                self.full = False
                found[content] = vector
        return found

    def expire(self, now_ms: int) -> None:
        """Forgets all of them when their time is over."""
        if self._vectors and not self._until_ms - self._keep_ms <= now_ms < self._until_ms:
            self._vectors.clear()
            self._bytes, self.full = 0, False
