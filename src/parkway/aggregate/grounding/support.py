"""Whether a passage says what a sentence says: by words, numbers, names and denial."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from parkway.aggregate.grounding.sentence import Span, sentences
from parkway.aggregate.grounding.words import Content, content_of, numbers_in, spelled

_WINDOW = 3
"""Sentences of a passage that one sentence may sum up."""

_QUOTED = re.compile(r"[\"“„«]([^\"“”„«»]{20,})[\"”“»]")
_ADDRESS = re.compile(r"(?:https?|ftp|data|mailto):[^\s<>\"'`)\]]+", re.IGNORECASE)
_SPACE = re.compile(r"\s+")

_LONGER_COSTS = 0.03
"""Of support, for each more sentence of a window: the place that says it most closely is cited."""


@dataclass(frozen=True, slots=True)
class Support:
    """How far a passage carries a sentence.

    Attributes:
        share: Of the sentence's words, those that stand there; 0 where a number, a name or a quotation does not.
        source: Where, in the passage's text.
        contradicted: One of both denies what the other says.
        matched: The words that stand there.
    """

    share: float
    source: Span
    contradicted: bool = False
    matched: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class _Place:
    span: Span
    words: frozenset[str]
    denies: bool
    sentences: int


class Claim:
    """A sentence that somebody has to carry.

    Args:
        given: What the question says: names in it need no source.
    """

    def __init__(self, sentence: str, given: Content) -> None:
        self.content: Content = content_of(sentence)
        self.names = self.content.names - given.names - {word.casefold() for word in given.words}
        # An address carries words away from here to whoever made it up: no part of one is the model's to choose.
        self.addresses = [spelled(match.group().rstrip(".,;:!?")).casefold() for match in _ADDRESS.finditer(sentence)]
        self.quotations = [_plain(match.group(1)) for match in _QUOTED.finditer(sentence)]

    @property
    def empty(self) -> bool:
        """Whether nothing is said that could be right or wrong."""
        return not (self.content.words or self.content.numbers or self.content.names)


class Source:
    """A passage, read once for all sentences that may rest on it.

    Args:
        headings: Title and headings, which say what it is about.
    """

    def __init__(self, text: str, headings: Sequence[str]) -> None:
        self._chars = len(text)
        self._plain = _plain(text)
        self._heading = content_of(" . ".join(headings))
        whole = content_of(text)
        self._numbers = numbers_in(whole) | numbers_in(self._heading)
        self._spelled = spelled(" ".join((text, *headings))).casefold()
        self._places = list(_places(text))

    def supports(self, claim: Claim) -> Support:
        """How far it carries `claim`, and where."""
        content = claim.content
        if (
            any(not readings & self._numbers for readings in content.numbers)
            or any(name.removesuffix("s") not in self._spelled for name in claim.names)
            or any(address not in self._spelled for address in claim.addresses)
            or any(quotation not in self._plain for quotation in claim.quotations)
        ):
            return Support(0.0, (0, self._chars))
        best, share, rank = None, 0.0, -1.0
        for place in self._places:
            found = self._share(content, place)
            if found - _LONGER_COSTS * place.sentences > rank:
                best, share, rank = place, found, found - _LONGER_COSTS * place.sentences
        if best is None:
            return Support(0.0, (0, self._chars))
        contradicted = content.denies != best.denies and (content.denies or best.sentences == 1)
        return Support(share, best.span, contradicted, content.words & (best.words | self._heading.words))

    def _share(self, content: Content, place: _Place) -> float:
        if not content.words:
            return 1.0  # numbers alone, which are there
        there = content.words & place.words
        headed = (content.words & self._heading.words) - there
        return (len(there) + (len(headed) if there else 0)) / len(content.words)


@lru_cache(512)
def source_of(text: str, headings: tuple[str, ...]) -> Source:
    """Those of hot passages are kept: reading one takes half a millisecond."""
    return Source(text, headings)


def _places(text: str) -> list[_Place]:
    """Runs of one to `_WINDOW` sentences."""
    spans = list(sentences(text))
    contents = [content_of(text[start:end]) for start, end in spans]
    found: list[_Place] = []
    for first in range(len(spans)):
        words: frozenset[str] = frozenset()
        denies = False
        for last in range(first, min(first + _WINDOW, len(spans))):
            words |= contents[last].words
            denies = denies or contents[last].denies
            found.append(_Place((spans[first][0], spans[last][1]), words, denies, last - first + 1))
    return found


def _plain(text: str) -> str:
    return _SPACE.sub(" ", text).strip(" .,;:!?").casefold()
