"""Answers without a model: the best sentences of the passages, word for word, or where to read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from parkway.aggregate.grounding.choice import Part, choose, parts_of
from parkway.aggregate.grounding.citation import cited
from parkway.aggregate.grounding.excerpt import MAX_BLOCK_CHARS
from parkway.aggregate.grounding.passage import Passage
from parkway.aggregate.grounding.sentence import Span
from parkway.core.grounding import Citation


@dataclass(frozen=True, slots=True)
class Quoted:
    """An answer that is quoted. `citations` have their places in `text`."""

    text: str
    citations: list[Citation]


class _Said(NamedTuple):
    """What is said of a span of a passage.

    Attributes:
        apart: It stands between empty lines.
        block: So does its citation: a table would take it for a row.
    """

    passage: Passage
    source: Span
    words: str
    apart: bool = False
    block: bool = False


def quote(passages: Sequence[Passage], question: str, most: int) -> Quoted:
    """What says most of what is asked, word for word and cited: at most `most` parts, and what they lead over to.

    The passage with the best part comes first; parts of one passage stand in its order, and neighbours together.
    Sentences are in quotation marks; tables, code and lists stand in lines of their own. Where there is nothing to
    quote it says where to read.
    """
    parts = {passage.number: parts_of(passage) for passage in passages}
    chosen = choose([part for some in parts.values() for part in some], question, most)
    places: dict[int, set[int]] = {}
    for part in chosen:
        taken = places.setdefault(part.passage.number, set())
        taken.update(_with_what_follows(part, parts[part.passage.number]))
    said = [
        _said(run) for number, some in places.items() for run in _runs([parts[number][place] for place in sorted(some)])
    ]
    return _told(_different(said)) if said else link(passages[:1])


def link(passages: Sequence[Passage]) -> Quoted:
    """Where to read: each document once, best first."""
    said: list[_Said] = []
    known = set[tuple[str, str]]()
    for passage in passages:
        document = (passage.hit.collection, passage.hit.document_id)
        if document not in known:
            known.add(document)
            name = passage.hit.title or passage.hit.uri or passage.hit.document_id
            page = "" if passage.hit.page is None else f", page {passage.hit.page}"
            said.append(_Said(passage, (0, len(passage.text)), " ".join(name.split()) + page))
    return _told(said)


def _with_what_follows(part: Part, parts: Sequence[Part]) -> Iterator[int]:
    """The place of a part, and of the list, table or code that it leads over to with a colon, as far as it fits."""
    yield part.place
    if not part.text.endswith(":"):
        return
    last = part
    for following in parts[part.place + 1 :]:
        fits = following.excerpt.end - part.excerpt.start <= MAX_BLOCK_CHARS
        if last.excerpt.block or not fits or not _together(last, following):
            return
        yield following.place
        last = following


def _together(part: Part, following: Part) -> bool:
    """Whether two parts are quoted as one: neighbours of a paragraph or of a list, or what a colon leads over to."""
    if following.place != part.place + 1:
        return False
    one, other = part.excerpt, following.excerpt
    between = part.passage.text[one.end : other.start]
    if between.strip() or one.block:
        return False
    if other.block or (other.mark and not one.mark):
        return part.text.endswith(":")
    return bool(one.mark and other.mark) or (not one.mark and between.count("\n") < 2)


def _runs(parts: Sequence[Part]) -> Iterator[list[Part]]:
    """Parts of one passage, in its order: those together that are quoted as one."""
    run: list[Part] = []
    for part in parts:
        if run and not _together(run[-1], part):
            yield run
            run = []
        run.append(part)
    if run:
        yield run


def _said(run: Sequence[Part]) -> _Said:
    first, last = run[0], run[-1]
    text = first.passage.text
    start, end = first.excerpt.start, last.excerpt.end
    if last.excerpt.block:
        return _Said(first.passage, (start, end), text[start:end], apart=True, block=True)
    if last.excerpt.mark and len(run) > 1:
        return _Said(first.passage, (start, end), text[start:end], apart=True)
    start += first.excerpt.mark  # an item alone is no list
    return _Said(first.passage, (start, end), f"“{text[start:end]}”")


def _different(said: Sequence[_Said]) -> list[_Said]:
    """Without what stands in another one: a list that was brought along may have an item that was chosen elsewhere."""
    texts = [each.passage.text[slice(*each.source)] for each in said]
    return [
        each
        for at, (each, text) in enumerate(zip(said, texts, strict=True))
        if not any(text in other and (text != other or place < at) for place, other in enumerate(texts) if place != at)
    ]


def _told(said: Sequence[_Said]) -> Quoted:
    """One beneath the other, each with its citation."""
    text, citations = "", list[Citation]()
    apart = False
    for each in said:
        if text:
            text += "\n\n" if apart or each.apart else "\n"
        start, end = len(text), len(text) + len(each.words)
        text += each.words + ("\n\n" if each.block else " ")
        marker = len(text)
        text += f"[{each.passage.number}]"
        citations.append(cited(each.passage, (start, end), (marker, len(text)), each.source))
        apart = each.apart
    return Quoted(text, citations)
