"""Citations: a span of an answer, the passage that it rests on, and where that stands in its document."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import msgspec

from parkway.aggregate.grounding.passage import Passage
from parkway.core.chat import Tier

_MAX_QUOTE_CHARS = 1000


class Citation(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an answer says at one place, and where it is from.

    Attributes:
        number: As it stands in the answer, in brackets.
        answer_start, answer_end: What of the answer rests on it, in characters.
        marker_start, marker_end: The number in its brackets.
        start, end: Of `quote`, in the document's text, in characters; missing where a guardrail changed the words.
        support: 0 to 1: how much of what is said stands there; missing where it was not checked.
    """

    number: int
    collection: str
    document_id: str
    passage_id: str
    answer_start: int
    answer_end: int
    marker_start: int
    marker_end: int
    quote: str
    title: str = ""
    uri: str = ""
    url: str = ""
    headings: list[str] = []
    page: int | None = None
    start: int | None = None
    end: int | None = None
    support: float | None = None


class Unsupported(msgspec.Struct, frozen=True, kw_only=True):
    """A sentence of the answer that no passage supports."""

    answer_start: int
    answer_end: int


class Grounded(msgspec.Struct, kw_only=True, omit_defaults=True):
    """`parkway` of a grounded answer.

    Attributes:
        answered: Whether it is an answer, and not that there is none.
        confidence: 0 to 1: how sure the search was that the answer is among what it found.
        dropped: Sentences that were left out because no passage supports them.
    """

    tier: Tier
    answered: bool
    confidence: float
    citations: list[Citation]
    unsupported: list[Unsupported] = []
    dropped: int = 0
    query: str = ""


def cited(
    passage: Passage,
    answer: tuple[int, int],
    marker: tuple[int, int],
    source: tuple[int, int],
    support: float | None = None,
) -> Citation:
    """A citation of `passage`.

    Args:
        answer, marker: Spans of the answer.
        source: Span of the passage's text.
    """
    hit = passage.hit
    start, end = source
    place = (hit.start + start, hit.start + end) if passage.exact else (None, None)
    return Citation(
        number=passage.number,
        collection=hit.collection,
        document_id=hit.document_id,
        passage_id=hit.passage_id,
        answer_start=answer[0],
        answer_end=answer[1],
        marker_start=marker[0],
        marker_end=marker[1],
        quote=passage.text[start:end][:_MAX_QUOTE_CHARS],
        title=hit.title,
        uri=hit.uri,
        url=url_of(passage),
        headings=hit.headings,
        page=hit.page,
        start=place[0],
        end=place[1],
        support=None if support is None else round(support, 3),
    )


def url_of(passage: Passage) -> str:
    """Where the document can be read: its own address, or that of its entry here."""
    hit = passage.hit
    if hit.uri.startswith(("http://", "https://")):
        return hit.uri
    return f"/v1/knowledge/{quote(hit.collection, safe='')}/documents/{quote(hit.uri or hit.document_id)}"


def annotations_of(citations: list[Citation]) -> list[dict[str, Any]]:
    """Citations in the form of OpenAI's chat completions, which knows addresses alone."""
    return [
        {
            "type": "url_citation",
            "url_citation": {
                "start_index": each.marker_start,
                "end_index": each.marker_end,
                "title": each.title or each.uri or each.document_id,
                "url": each.url,
            },
        }
        for each in citations
    ]
