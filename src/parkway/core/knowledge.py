"""Knowledge on the wire: what is asked of a collection, and what is found; between clients, gateway and owners."""

from __future__ import annotations

import re
from typing import Annotated, Literal

import msgspec

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")

Value = str | int | float | bool | list[str]


def can_be_name(name: str) -> bool:
    """Whether a collection can be called so."""
    return _NAME.fullmatch(name) is not None


def checked_name(name: str) -> str:
    """The name of a collection.

    Raises:
        ValueError: None can be called so; the message says what would be right.
    """
    if not can_be_name(name):
        raise ValueError(
            f"{name[:64]!r} cannot be the name of a collection; one has 1 to 64 of a-z, 0-9, `.`, `_`, `-`, and begins "
            "with a letter or a digit"
        )
    return name


class Range(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Numbers, or dates as ISO 8601 writes them; an end that is missing is open."""

    gte: float | str | None = None
    lte: float | str | None = None


class Search(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is looked for in a collection.

    Attributes:
        limit: The most hits.
        filter: Of metadata: equal to a value, to one of several, or within a range.
        documents: Only those.
        rerank: Whether the first hits are ordered once more by all that is known of them.
        diversity: 0 to 1: how much hits that say the same give way to others (maximal marginal relevance); None: as
            the collection says.
        explain: Whether each hit says why it stands where it stands.
        budget_ms: What re-ranking may take, in place of what the collection says; what is not done by then keeps the
            order that it had.
    """

    query: Annotated[str, msgspec.Meta(min_length=1, max_length=8192)]
    limit: Annotated[int, msgspec.Meta(ge=1, le=200)] = 10
    filter: dict[str, str | int | float | bool | list[str] | Range] = {}
    documents: list[str] | None = None
    rerank: bool = True
    diversity: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    explain: bool = False
    budget_ms: Annotated[float, msgspec.Meta(gt=0, le=10_000)] | None = None


class Asked(msgspec.Struct, frozen=True):
    """A search as an owner gets it: with the principals of who asks, `*` left out."""

    search: Search
    principals: list[str]


class Scores(msgspec.Struct, frozen=True, omit_defaults=True):
    """Of a hit: BM25, cosine, reciprocal rank fusion, and of the ranker. What it was not found by is missing."""

    keyword: float | None = None
    vector: float | None = None
    fused: float | None = None
    rank: float | None = None


class Hit(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A passage that was found.

    Attributes:
        start, end: Its span in the document's text, in characters.
        explanation: With `explain`: what the ranker saw, and how much each part weighed.
    """

    passage_id: str
    document_id: str
    collection: str
    text: str
    start: int
    end: int
    scores: Scores
    title: str = ""
    uri: str = ""
    headings: list[str] = []
    page: int | None = None
    metadata: dict[str, Value] = {}
    explanation: dict[str, float] | None = None


class Found(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The answer to a search.

    Attributes:
        confidence: 0 to 1: how sure it is that the answer stands in these hits.
        took_ms: By stage: `embed`, `search`, `rank`, `read` where a cross-encoder is in use, `total`; of what is
            `cached`, `total` alone.
        version: Of the collection; another one once anything in it has changed. Empty where that is not known.
        cached: Whether the same was found before, for the same caller, and nothing has changed since.
    """

    hits: list[Hit]
    confidence: float = 0.0
    took_ms: dict[str, float] = {}
    version: str = ""
    cached: bool = False


State = Literal["waiting", "indexed", "set_aside", "removing"]


class DocumentStatus(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A document of a collection. `reason` says why it was set aside.

    Attributes:
        characters: Of its text as it was read, in which spans are counted; 0: not known.
    """

    document_id: str
    uri: str
    state: State
    title: str = ""
    reason: str = ""
    media_type: str = ""
    bytes: int = 0
    characters: int = 0
    passages: int = 0
    updated_ms: int = 0


class ReplicaLag(msgspec.Struct, frozen=True, kw_only=True):
    """How far the copy that a replica has of a partition is behind, in seconds."""

    replica: int
    partition: int
    lag_s: float


class CollectionStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A collection and how far it is. `indexed` and so on count documents.

    Attributes:
        sources: Where its documents come from; told to administrators alone.
        trouble: What is wrong just now: a source that cannot be looked through, settings that cannot be taken over;
            told to administrators alone.
        replica_lags: Of each replica that has copies, in each partition.
    """

    name: str
    documents: int
    waiting: int
    indexed: int
    set_aside: int
    passages: int
    sources: list[str] = []
    updated_ms: int = 0
    trouble: list[str] = []
    replica_lags: list[ReplicaLag] = []


Principal = Annotated[str, msgspec.Meta(pattern=r"^(\*|(key|user|team):\S.{0,254})$")]
"""Who may see a document: everyone who may search its collection (`*`), or `key:NAME`, `user:NAME`, `team:NAME`."""

Access = Annotated[list[Principal], msgspec.Meta(max_length=64)]


class CollectionRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A collection to be made, for documents that are sent; one that is there takes these in place of what it had.

    Attributes:
        access: Who may see its documents, where one does not say so itself; None: as it was, or everyone.
    """

    access: Annotated[list[Principal], msgspec.Meta(min_length=1, max_length=64)] | None = None


Metadata = Annotated[
    dict[Annotated[str, msgspec.Meta(min_length=1, max_length=128)], Value], msgspec.Meta(max_length=64)
]
"""Of a document, for filters to compare."""


class NewCollection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The same between the processes of one installation, whose administrator may name folders and files of it.

    Attributes:
        paths: Absolute; they are added to those that the collection has, and followed from then on.
        access: None: as it was, or everyone.
        metadata: Of the documents at `paths`.
    """

    paths: list[str] = []
    access: list[str] | None = None
    metadata: Metadata = {}


class NewDocument(msgspec.Struct, frozen=True, kw_only=True):
    """What is said of a document that is sent.

    Attributes:
        access: Who may see it; empty: as the collection says.
    """

    uri: str
    media_type: str = ""
    access: Access = []
    metadata: Metadata = {}


class CollectionList(msgspec.Struct, kw_only=True):
    """The collections that the caller may search."""

    data: list[CollectionStatus]
    object: str = "list"


class DocumentPage(msgspec.Struct, kw_only=True):
    """Documents in the order of their ids; the next page comes after that of the last."""

    data: list[DocumentStatus]
    has_more: bool
    object: str = "list"


class Removed(msgspec.Struct, kw_only=True):
    """What was removed: a collection, or a document by its URI. It is not found any more."""

    id: str
    deleted: bool = True
