"""The words of a text in order, as stems: what a query and a passage are compared by."""

from __future__ import annotations

import re

from parkway.retrieval.index.words import Words

MAX_WORDS = 1024
"""Of a passage; what follows is not compared."""

MAX_KNOWN = 200_000

_WORD = re.compile(r"\w+")


class Reading:
    """Reads texts in one language. Words are the same as in the index: see `index/words.py`."""

    def __init__(self, language: str) -> None:
        self._words = Words(language)
        self._known: dict[str, tuple[int, ...]] = {}

    def terms(self, text: str) -> list[int]:
        """Of each word its terms, in order; empty words have none."""
        known = self._known
        found: list[int] = []
        for word in _WORD.findall(text[: 16 * MAX_WORDS].lower())[:MAX_WORDS]:
            terms = known.get(word)
            found += self._read(word) if terms is None else terms
        return found

    def _read(self, word: str) -> tuple[int, ...]:
        if len(self._known) >= MAX_KNOWN:
            self._known.clear()
        terms = tuple(self._words.of_query(word).indices)
        self._known[word] = terms
        return terms
