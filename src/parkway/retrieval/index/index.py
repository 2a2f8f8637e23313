"""The index: where passages lie and are found again. A contract; every store behind it passes the same tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from parkway.retrieval.document import EVERYONE, Passage, Value

Vectors = Any
"""float32 [passages, dimensions], rows of length 1: a numpy array."""


@dataclass(frozen=True, slots=True)
class Between:
    """A range of numbers, or of dates as ISO 8601 writes them (without a zone: UTC), ends included; None is open."""

    at_least: float | str | None = None
    at_most: float | str | None = None


@dataclass(frozen=True, slots=True)
class Filter:
    """Which passages may be found at all. Applied inside the search: what it leaves out is not even counted.

    Attributes:
        principals: Who asks: a passage is seen if its `access` has one of them, or `*`. Always given; without any,
            nothing is seen, not even what is for everyone.
        metadata: Each must be equal, or one of several, or between two. A list has each of its elements: as a value of
            a passage it equals all of them, in a filter one of them is enough. 1 equals 1.0 and neither `true` nor
            "1". What a passage does not say equals nothing.
        documents: Only those; None: all.
        passages: Only those with these ids (UUIDs), as many as a search finds; None: all. So what one list has found
            gets the score that the other would give it.
    """

    principals: frozenset[str]
    metadata: Mapping[str, Value | tuple[Value, ...] | Between] = field(default_factory=dict)
    documents: frozenset[str] | None = None
    passages: frozenset[str] | None = None

    @property
    def seen_by(self) -> frozenset[str]:
        return self.principals | {EVERYONE}


@dataclass(frozen=True, slots=True)
class Query:
    """What is looked for, by words and by meaning at once.

    Attributes:
        text: Its words; empty: by meaning alone.
        vector: float32 [dimensions] of length 1; None: by words alone.
        keyword_depth, vector_depth: How many of each list.
        exact: Compares with every vector instead of going by the graph.
        effort: Of the graph search (`ef`); None: the store's own.
    """

    text: str
    vector: Vectors | None
    filter: Filter
    keyword_depth: int = 100
    vector_depth: int = 100
    exact: bool = False
    effort: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A passage that was found.

    Attributes:
        keyword_score: BM25; None where it is not in the list by words.
        vector_score: Cosine; None where it is not in the list by meaning.
        vector: float32 [dimensions]. Stores may make it when it is asked for: ask once, and only where it is needed.
    """

    passage: Passage
    keyword_score: float | None
    vector_score: float | None
    vector: Vectors


@dataclass(frozen=True, slots=True)
class Size:
    """How much there is.

    Attributes:
        indexed: How many of the vectors stand in the graph; those that do not are compared one by one.
        removed: How many were removed or replaced whose room, and whose text, `optimise` has yet to give back. After a
            restart at least 1 if there are any.
        disk_bytes: None where the store does not say.
    """

    passages: int
    indexed: int
    removed: int = 0
    disk_bytes: int | None = None


class Index(Protocol):
    """The passages of one collection, or of one partition of it.

    Blocking; used from any number of threads. What a call has changed is on disk when it returns, and found by the
    next search. A call that was cut off may be repeated: all of them say what shall be, not what shall be added.

    Raises, all of them:
        IndexUnavailable: The store does not answer; nothing is known of what was being written.
        IndexDamaged: What lies there cannot be read; the message says how to build it anew.
    """

    def upsert(self, passages: Sequence[Passage], vectors: Vectors) -> None:
        """Puts passages in, or over those with the same id.

        Raises:
            ValueError: A vector has the wrong shape or length, or a passage cannot be kept; nothing was changed.
        """
        ...

    def remove(self, document_id: str, *, but: str | None = None) -> None:
        """Removes a document's passages; those of version `but` stay."""
        ...

    def search(self, query: Query) -> list[Candidate]:
        """All that is in either list, without order. A filter never makes a list shorter than what there is to find."""
        ...

    def vectors(self, contents: Sequence[str]) -> dict[str, Vectors]:
        """The vectors that are there already, by `Passage.content`."""
        ...

    def passages(self, document_id: str) -> list[Passage]:
        """All of a document, in order."""
        ...

    def documents(self) -> dict[str, set[str]]:
        """The versions that are there of each document: more than one, or one too many, is what a crash left."""
        ...

    def optimise(self) -> bool:
        """Brings the graph up to date and gives back the room of what was removed; whether there was anything to do.

        May take minutes; searches and writes go on beside it. What was removed before is in no file afterwards.
        """
        ...

    def size(self) -> Size: ...

    def close(self) -> None: ...
