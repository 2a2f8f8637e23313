"""Size: characters, words and lines of a text."""

from __future__ import annotations

import re

from pydantic import PositiveInt, model_validator

from parkway.core.configuration import Section
from parkway.policy.guardrails.finding import Finding

_WORD = re.compile(r"\S+")


class SizeOptions(Section):
    """The most that one text may have; at least one of them."""

    max_chars: PositiveInt | None = None
    max_words: PositiveInt | None = None
    max_lines: PositiveInt | None = None

    @model_validator(mode="after")
    def _something(self) -> SizeOptions:
        if self.max_chars is self.max_words is self.max_lines is None:
            raise ValueError("give at least one of `max_chars`, `max_words`, `max_lines`")
        return self


class Size:
    """Finds what is beyond the size that is allowed."""

    cost_ns = 30

    def __init__(self, options: SizeOptions) -> None:
        self._options = options

    def find(self, text: str) -> list[Finding]:
        found = SizeMeter(self._options).add(text)
        return [found] if found is not None else []

    def meter(self) -> SizeMeter:
        return SizeMeter(self._options)


class SizeMeter:
    """Counts a text that arrives in pieces."""

    def __init__(self, options: SizeOptions) -> None:
        self._options = options
        self._chars = 0
        self._words = 0
        self._lines = 1
        self._in_word = False

    def add(self, piece: str, *, final: bool = False) -> Finding | None:  # noqa: ARG002 - nothing waits for the end
        options, places = self._options, []
        if options.max_chars is not None and self._chars + len(piece) > options.max_chars:
            places.append((max(0, options.max_chars - self._chars), "chars"))
        self._chars += len(piece)
        if options.max_words is not None and (at := self._over_words(piece, options.max_words)) is not None:
            places.append((at, "words"))
        if options.max_lines is not None and (at := self._over_lines(piece, options.max_lines)) is not None:
            places.append((at, "lines"))
        if not places:
            return None
        start, kind = min(places)
        return Finding(start, len(piece), kind)

    def _over_words(self, piece: str, most: int) -> int | None:
        for match in _WORD.finditer(piece):
            if match.start() > 0 or not self._in_word:
                self._words += 1
                if self._words > most:
                    return match.start()
        if piece:
            self._in_word = not piece[-1].isspace()
        return None

    def _over_lines(self, piece: str, most: int) -> int | None:
        count = piece.count("\n")
        if self._lines + count <= most:
            self._lines += count
            return None
        at = -1
        for _ in range(most - self._lines + 1):
            at = piece.find("\n", at + 1)
        return at
