"""A passage that an answer may rest on, and which of those that were found it may."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from parkway.aggregate.grounding.sentence import sentences
from parkway.core.knowledge import Hit

_BYTES_A_TOKEN = 3.5
"""Less than English has: passages hold code, tables and numbers, and a prompt that is too long is none."""

_FRAME_TOKENS = 24
"""Of the lines around a passage."""


@dataclass(frozen=True, slots=True)
class Passage:
    """A hit under the number that citations call it by, from 1.

    Attributes:
        text: As it may be shown; where that is not `hit.text`, `exact` is false: it has no place in the document.
    """

    number: int
    hit: Hit
    text: str
    exact: bool = True


def tokens_of(text: str) -> int:
    """About how many tokens `text` has for a model that nobody here knows."""
    size = len(text) if text.isascii() else len(text.encode(errors="replace"))
    return -int(-size // _BYTES_A_TOKEN)


def cost_of(hit: Hit, text: str) -> int:
    """What a passage takes of a prompt."""
    return _FRAME_TOKENS + tokens_of(text) + tokens_of(hit.title) + tokens_of(" ".join(hit.headings))


def select(found: Iterable[tuple[Hit, str]], budget: int, most: int) -> list[Passage]:
    """The best passages that fit into `budget` tokens together; best first.

    What another one says already is left out. Where not even the first one fits, the sentences of it that do.

    Args:
        found: Hits, best first, each with its text as it may be shown.
    """
    taken: list[Passage] = []
    left = budget
    for hit, text in found:
        if len(taken) >= most:
            break
        if not text.strip() or _is_told(hit, text, taken):
            continue
        cost = cost_of(hit, text)
        exact = text == hit.text
        if cost > left:
            if taken:
                continue
            text = _beginning(text, left - (cost - tokens_of(text)))
            if not text:
                continue
            cost = left
        taken.append(Passage(len(taken) + 1, hit, text, exact))
        left -= cost
    return taken


def shown(passages: Sequence[Passage]) -> list[Passage]:
    """Passages as a model is shown them: in the order of their documents, and numbered in it.

    So the same passages make the same prompt whatever was asked, and an engine that has read them need not again.
    """
    ordered = sorted(passages, key=lambda each: (each.hit.collection, each.hit.document_id, each.hit.start))
    return [replace(passage, number=number) for number, passage in enumerate(ordered, 1)]


def merged(found: Sequence[Sequence[Hit]]) -> list[Hit]:
    """Hits of several collections as one list: by the ranker's score where each has one, else taken in turn."""
    everything = [hit for hits in found for hit in hits]
    if len(found) > 1 and all(hit.scores.rank is not None for hit in everything):
        return sorted(everything, key=lambda hit: -(hit.scores.rank or 0.0))
    longest = max(map(len, found), default=0)
    return [hits[place] for place in range(longest) for hits in found if place < len(hits)]


def _is_told(hit: Hit, text: str, taken: list[Passage]) -> bool:
    return any(
        text in passage.text
        or (
            (hit.collection, hit.document_id) == (passage.hit.collection, passage.hit.document_id)
            and hit.start >= passage.hit.start
            and hit.end <= passage.hit.end
        )
        for passage in taken
    )


def _beginning(text: str, budget: int) -> str:
    end = 0
    for _, stop in sentences(text):
        if tokens_of(text[:stop]) > budget:
            break
        end = stop
    return text[:end]
