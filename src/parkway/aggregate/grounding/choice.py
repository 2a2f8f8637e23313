"""Which parts of passages say most of what is asked. No model is asked for it.

What it goes by, and the numbers below, were chosen on three of the documents of `bench/extractive_answers.py`.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from parkway.aggregate.grounding.excerpt import Excerpt, excerpts
from parkway.aggregate.grounding.passage import Passage
from parkway.aggregate.grounding.words import Content, content_of, numbers_in, stem

_PAIRS = 0.4
"""What the question's pairs of words are worth together, where all of its words are worth 1."""

_FIRST = 0.3
"""What it is worth to stand in the first passage; half of it in the second, a third in the third."""

_QUESTION = 0.5
"""What is left of the worth of words in a part that asks itself, or has the question in it, word for word."""

_NEXT_TO_BEST = 0.7
"""What another part must reach of the best one's worth."""

_MIN_CHARS = 20
_ASKED_AGAIN_WORDS = 4

_WORD = re.compile(r"\w+")
_ASKS = ("?", "？", "؟")


@dataclass(frozen=True, slots=True)
class Part:
    """An excerpt of a passage.

    Attributes:
        place: Which of the passage's excerpts it is.
        says: Its words and numbers, as they are compared.
        denies: Whether there is a "not" in it.
    """

    passage: Passage
    excerpt: Excerpt
    place: int
    says: frozenset[str]
    denies: bool

    @property
    def text(self) -> str:
        return self.passage.text[self.excerpt.start : self.excerpt.end]


def parts_of(passage: Passage) -> list[Part]:
    """What can be quoted of it, in order."""
    parts: list[Part] = []
    for place, excerpt in enumerate(excerpts(passage.text)):
        content = content_of(passage.text[excerpt.start : excerpt.end])
        parts.append(Part(passage, excerpt, place, _said(content), content.denies))
    return parts


def choose(pool: Sequence[Part], question: str, most: int) -> list[Part]:
    """At most `most` of `pool`, best first: the best one, and those that are nearly as good. None says the same twice.

    A part is worth the share of the question's words that it has, each weighed by how few parts have it, the share of
    the question's pairs of words that it has in the same order, and its passage's place.
    """
    parts = [part for part in pool if len(part.text) >= _MIN_CHARS] or pool
    wanted = _said(content_of(question))
    pairs, again = _pairs(question, wanted), _again(question)
    seen = Counter(word for part in parts for word in part.says & wanted)
    weight = {word: math.log(1 + len(parts) / (1 + seen[word])) for word in wanted}
    total = sum(weight.values()) or 1.0

    def worth(part: Part) -> float:
        has = part.says & wanted
        words = sum(weight[word] for word in has) / total
        ordered = len(pairs & _pairs(part.text, has)) / len(pairs) if len(has) > 1 and pairs else 0.0
        asks = part.text.endswith(_ASKS) or (again is not None and again in _plain(part.text))
        return (words + _PAIRS * ordered) * (_QUESTION if asks else 1.0) + _FIRST / part.passage.number

    chosen: list[Part] = []
    ranked = sorted(((worth(part), part) for part in parts), key=lambda each: -each[0])
    for value, part in ranked:
        if len(chosen) == most or value < _NEXT_TO_BEST * ranked[0][0]:
            break
        if not any(_repeats(part, other) for other in chosen):
            chosen.append(part)
    return chosen


def _repeats(part: Part, other: Part) -> bool:
    """Whether it says nothing that the other one does not, or one has the other in it, word for word."""
    new = part.says - other.says or part.denies != other.denies
    return not new or part.text in other.text or other.text in part.text


def _said(content: Content) -> frozenset[str]:
    return content.words | numbers_in(content)


def _again(question: str) -> str | None:
    """What is found where a question is asked again, as in an example; None for one that an answer may have in it."""
    asked = _plain(question)
    return asked[:-1].rstrip() if asked.endswith(_ASKS) and asked.count(" ") >= _ASKED_AGAIN_WORDS - 1 else None


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def _pairs(text: str, wanted: frozenset[str]) -> set[tuple[str, str]]:
    """Neighbours among those words of `text` that are wanted."""
    words = (stem(match.group().casefold()) for match in _WORD.finditer(text))
    return set(pairwise(word for word in words if word in wanted))
