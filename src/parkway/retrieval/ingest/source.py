"""Where documents come from. A contract: folders, uploads, object stores and queries are all read through it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from parkway.retrieval.document import Value

MAX_URI = 4096  # characters


@dataclass(frozen=True, slots=True)
class Entry:
    """A document that a source has.

    Attributes:
        uri: What it is called, in printable characters; the same for as long as it is the same document.
        fingerprint: Another one whenever it may have changed.
        access: Who may see it; None: as the collection says.
        refused: Why it will not be read, though it is there.
    """

    uri: str
    fingerprint: str
    title: str = ""
    media_type: str = ""
    bytes: int = 0
    access: tuple[str, ...] | None = None
    metadata: Mapping[str, Value] = field(default_factory=dict)
    refused: str = ""


@dataclass(frozen=True, slots=True)
class Unknown:
    """A part of a source that could not be listed: what is known of it stays as it is.

    Attributes:
        below: What the uris in it begin with.
    """

    below: str
    reason: str


@dataclass(frozen=True, slots=True)
class Content:
    """A document's bytes, and what a parser should know of them.

    Attributes:
        name: As of a file: its ending may say what it is.
        title: As the source has it; empty: as it stands in the document.
        entry: What the source says of it at the same moment, where that may be another thing than it said before: what
            was meant for some must not come in as what it was, for everyone.
    """

    data: bytes
    name: str
    media_type: str = ""
    title: str = ""
    entry: Entry | None = None


class SourceUnavailable(Exception):
    """A source does not answer just now. It is asked again; nothing is taken to be gone."""


class Away(SourceUnavailable):
    """Nothing of it answers: it says nothing of a document that this one could not be read."""


class Missing(Exception):
    """A document is not there any more."""


class Source(Protocol):
    """Blocking; used from several threads."""

    @property
    def name(self) -> str:
        """A part of the identity of each of its documents."""
        ...

    def entries(self) -> Iterator[Entry | Unknown]:
        """All that it has, one after the other.

        Raises:
            SourceUnavailable: At any moment; what came before it holds.
        """
        ...

    def read(self, uri: str, most: int) -> Content:
        """One of them.

        Args:
            most: Bytes; of a larger one nothing is read.

        Raises:
            Unreadable: It is too large or cannot be read, and will not be until it changes.
            Missing: It is gone.
            SourceUnavailable: It may be there when it is asked for again.
        """
        ...
