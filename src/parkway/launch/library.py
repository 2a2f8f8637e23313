"""What an owner of documents is made of: a library that takes them in, and a search that finds what stands in them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from parkway.core.knowledge import (
    CollectionStatus,
    DocumentPage,
    DocumentStatus,
    Found,
    NewCollection,
    NewDocument,
    Search,
)


class Searching(Protocol):
    """Finds passages, over all partitions."""

    async def search(self, collection: str, search: Search, principals: frozenset[str]) -> Found:
        """Raises: CollectionNotFound, InvalidRequest."""
        ...


class Library(Protocol):
    """Collections and their documents. What it has taken is safe: it survives a kill of the process."""

    async def collections(self, principals: frozenset[str] | None = None) -> list[CollectionStatus]:
        """All of them, by name; of their documents those are counted that `principals` may see, None: all."""
        ...

    async def status(self, collection: str, principals: frozenset[str] | None = None) -> CollectionStatus:
        """One of them. Raises: CollectionNotFound."""
        ...

    async def add(self, collection: str, new: NewCollection) -> CollectionStatus:
        """Makes a collection or adds to it; returns when its sources were looked through, not when they are indexed.

        Raises:
            InvalidRequest: There is nothing at a path.
        """
        ...

    async def remove(self, collection: str) -> None:
        """Removes a collection and all that is kept of its documents. Raises: CollectionNotFound."""
        ...

    async def documents(
        self, collection: str, after: str, limit: int, principals: frozenset[str] | None
    ) -> DocumentPage:
        """Documents in the order of their ids, from the one after `after`; only what `principals` may see, None: all.

        Raises:
            CollectionNotFound: There is none.
        """
        ...

    async def add_document(self, collection: str, new: NewDocument, content: AsyncIterator[bytes]) -> DocumentStatus:
        """Keeps a document and has it indexed; one of the same URI is replaced.

        Raises:
            CollectionNotFound: There is none.
            BodyTooLarge: Of `content`, or any other error; then nothing has changed.
        """
        ...

    async def remove_document(self, collection: str, uri: str) -> None:
        """Raises: CollectionNotFound, DocumentNotFound."""
        ...


@dataclass(frozen=True, slots=True)
class Owned:
    """What one owner works with.

    Attributes:
        candidates: What this partition alone has for the question of another, in the words of `partition_index.py`;
            raises CollectionNotFound.
        revision: Of this partition of a collection: another one once anything in it has changed. Likewise.
        library: None of a replica.
        copy: Makes a copy of a collection's index for the replica with a number, under a name, and says what it is of.
    """

    library: Library | None
    searching: Searching
    candidates: Callable[[str, bytes], Awaitable[bytes]] | None = None
    revision: Callable[[str], str] | None = None
    copy: Callable[[str, int, str], Awaitable[object]] | None = None
