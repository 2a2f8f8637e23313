"""Answers from documents on the wire: how they are asked for, and what they rest on."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from parkway.core.knowledge import Range, Value

Tier = Literal["generated", "extractive", "links"]
"""Of a grounded answer: in the model's words; the best sentences of documents, word for word; where to read."""

Told = Tier | Literal["unchecked"]
"""The tier of an answer as it came to be: `unchecked` where it calls tools, or has a form such as JSON."""

Checking = Literal["off", "mark", "drop"]
"""What becomes of a sentence of an answer that no passage supports."""


class GroundingRequest(msgspec.Struct, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """How a request wants its answer grounded; never with less care than the settings ask for.

    Attributes:
        filter, documents: As in a search: which documents count.
    """

    tier: Tier | None = None
    check: Checking | None = None
    context_tokens: Annotated[int, Meta(ge=64, le=1_000_000)] | None = None
    min_confidence: Annotated[float, Meta(ge=0, le=1)] | None = None
    filter: Annotated[dict[str, Value | Range], Meta(max_length=32)] = {}
    documents: Annotated[list[str], Meta(max_length=1000)] | None = None


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

    tier: Told
    answered: bool
    confidence: float
    citations: list[Citation]
    unsupported: list[Unsupported] = []
    dropped: int = 0
    query: str = ""


class UrlCitation(msgspec.Struct, frozen=True, kw_only=True):
    start_index: int
    end_index: int
    title: str
    url: str


class Annotation(msgspec.Struct, frozen=True, kw_only=True):
    """A citation in OpenAI's form: `start_index` to `end_index` of the text is the number in its brackets."""

    url_citation: UrlCitation
    type: Literal["url_citation"] = "url_citation"
