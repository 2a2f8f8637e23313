"""What guardrails ask of a check."""

from __future__ import annotations

import re
from typing import Protocol, runtime_checkable

from parkway.policy.guardrails.finding import Finding

BEFORE = 96
"""Characters in front of a text that may decide what is found in it: names of fields, words of context, boundaries."""

MAX_MATCH = 512
"""The longest finding, in characters, that is found wherever a stream cuts it (what is held permitting)."""


class Check(Protocol):
    """Looks for one sort of thing. Every check takes time in proportion to the text, whatever the text is."""

    @property
    def cost_ns(self) -> int:
        """Nanoseconds of CPU for a character, about: decides what is too long for the event loop."""
        ...

    def find(self, text: str) -> list[Finding]:
        """What is in `text`, in any order; places may overlap."""
        ...


@runtime_checkable
class Spotter(Check, Protocol):
    """A check whose findings are places that can be cut out, found in a stream while it runs.

    A finding may depend on at most `BEFORE` characters in front of it, and on nothing behind it but the next one.
    """

    def unsettled(self, text: str) -> int:
        """From where on more text may make a difference: no finding ever crosses this place, whatever follows."""
        ...

    def rest(self, kind: str, text: str) -> tuple[int, bool]:
        """How many characters at the front of `text` still belong to a finding that ended where it begins, and whether
        it may go on behind `text`."""
        ...


class Meter(Protocol):
    """Watches one text that arrives in pieces."""

    def add(self, piece: str, *, final: bool = False) -> Finding | None:
        """The first finding, in places of `piece`; at the end of the text an empty piece that is `final`."""
        ...


@runtime_checkable
class Judge(Check, Protocol):
    """A check of a text as a whole: there is nothing to cut out, so that it only observes or blocks."""

    def meter(self) -> Meter:
        """Watches a stream."""
        ...


_WORD_LIKE = re.compile(r"[\w.@+/=-]*")


def rest_of_word(text: str) -> tuple[int, bool]:
    """`rest` for findings that go on as long as letters, digits and the signs of tokens do."""
    match = _WORD_LIKE.match(text)
    end = match.end() if match else 0
    return end, end == len(text)


def last_word(text: str, reach: int = MAX_MATCH) -> int:
    """Where the last word begins; a word that is longer than `reach` is cut there."""
    lowest = max(0, len(text) - reach)
    place = len(text)
    while place > lowest and not text[place - 1].isspace():
        place -= 1
    return place
