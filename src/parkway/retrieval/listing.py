"""What people are told of collections and their documents: how many, how far, and which of them they may see."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import msgspec
from sqlalchemy import Row, func, select

from parkway.core.knowledge import CollectionStatus, DocumentPage, DocumentStatus, State
from parkway.retrieval.catalogue import Partition
from parkway.retrieval.config import UPLOADS, CollectionConfig
from parkway.retrieval.document import EVERYONE
from parkway.retrieval.shown import Shown
from parkway.store.schema import knowledge_collections as collections
from parkway.store.schema import knowledge_documents as documents
from parkway.store.sql import Database

_PAGE = 200


@dataclass(frozen=True, slots=True)
class Count:
    """How many documents of a collection are in a state, and how many passages of theirs are in the index."""

    collection: str
    state: State
    documents: int
    passages: int
    updated_ms: int


class Listing:
    """Blocking; for any number of threads.

    Raises, all of it:
        StoreUnavailable: The database does not answer.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def counts(self, partition: Partition | None = None, collection: str | None = None) -> list[Count]:
        """Of one partition, or of all; of one collection, or of all."""
        c = documents.c
        query = select(c.collection, c.state, func.count(), func.sum(c.passages), func.max(c.updated_ms))
        if partition is not None and partition.of > 1:
            query = query.where(c.slot % partition.of == partition.number)
        if collection is not None:
            query = query.where(c.collection == collection)
        with self._database.read() as connection:
            rows = connection.execute(query.group_by(c.collection, c.state)).all()
        return [Count(name, state, count, int(passages or 0), ms) for name, state, count, passages, ms in rows]

    def statuses(
        self, collection: str | None = None, principals: frozenset[str] | None = None
    ) -> list[CollectionStatus]:
        """How far collections are, in the order of their names: all, or the one if there is one.

        Args:
            principals: Only what they may see is counted; None: all.
        """
        query = select(collections).where(collections.c.removing.is_(False)).order_by(collections.c.collection)
        if collection is not None:
            query = query.where(collections.c.collection == collection)
        with self._database.read() as connection:
            heads = connection.execute(query).all()
        configs = {head.collection: CollectionConfig.model_validate_json(head.settings) for head in heads}
        counts = self.counts(collection=collection) if principals is None else self._seen_of(configs, principals)
        return [
            _status(head, configs[head.collection], [each for each in counts if each.collection == head.collection])
            for head in heads
        ]

    def documents(
        self,
        collection: str,
        config: CollectionConfig,
        after: str = "",
        limit: int = 100,
        principals: frozenset[str] | None = None,
    ) -> DocumentPage:
        """Documents in the order of their ids, from the one after `after`.

        Args:
            principals: Only what they may see; None: all.
        """
        data = list(islice(self._seen(collection, config, after, principals), limit + 1))
        return DocumentPage(data=data[:limit], has_more=len(data) > limit)

    def document(self, identifier: str) -> DocumentStatus | None:
        """One document, under the name that its source has for it."""
        with self._database.read() as connection:
            row = connection.execute(select(documents).where(documents.c.document_id == identifier)).one_or_none()
        return None if row is None else _document(row, row.uri)

    def _seen_of(self, configs: Mapping[str, CollectionConfig], principals: frozenset[str]) -> list[Count]:
        """The counts of what `principals` may see in these collections."""
        c = documents.c
        query = select(c.collection, c.state, c.access, func.count(), func.sum(c.passages), func.max(c.updated_ms))
        query = query.where(c.collection.in_(configs)).group_by(c.collection, c.state, c.access)
        with self._database.read() as connection:
            rows = connection.execute(query).all()
        found: dict[tuple[str, State], Count] = {}
        for name, state, access, count, passages, ms in rows:
            if _may_see(access, configs[name], principals):
                known = found.get((name, state), Count(name, state, 0, 0, 0))
                found[name, state] = Count(
                    name, state, known.documents + count, known.passages + int(passages or 0), max(known.updated_ms, ms)
                )
        return list(found.values())

    def _seen(
        self, collection: str, config: CollectionConfig, after: str, principals: frozenset[str] | None
    ) -> Iterator[DocumentStatus]:
        c = documents.c
        shown = Shown.of(config)
        while True:
            query = select(documents).where(c.collection == collection, c.document_id > after, c.state != "removing")
            with self._database.read() as connection:
                rows = connection.execute(query.order_by(c.document_id).limit(_PAGE)).all()
            for row in rows:
                after = row.document_id
                if principals is None or _may_see(row.access, config, principals):
                    yield _document(row, row.uri if row.source == UPLOADS else shown(row.uri))
            if len(rows) < _PAGE:
                return


def _may_see(access: str | None, config: CollectionConfig, principals: frozenset[str]) -> bool:
    """Whether one of `principals` may see a document with this `access`, as the catalogue has it."""
    named = config.access if access is None else msgspec.json.decode(access, type=list[str])
    return EVERYONE in named or not principals.isdisjoint(named)


def _status(head: Row[Any], config: CollectionConfig, counts: Sequence[Count]) -> CollectionStatus:
    of = {each.state: each.documents for each in counts}
    return CollectionStatus(
        name=head.collection,
        documents=sum(count for state, count in of.items() if state != "removing"),
        waiting=of.get("waiting", 0),
        indexed=of.get("indexed", 0),
        set_aside=of.get("set_aside", 0),
        passages=sum(each.passages for each in counts),
        sources=[source.name for source in config.sources],
        updated_ms=max([head.updated_ms, *(each.updated_ms for each in counts)]),
    )


def _document(row: Row[Any], uri: str) -> DocumentStatus:
    return DocumentStatus(
        document_id=row.document_id,
        uri=uri,
        state=row.state,
        title=row.title,
        reason=row.reason,
        media_type=row.media_type,
        bytes=row.bytes,
        characters=row.characters or 0,
        passages=row.passages,
        updated_ms=row.updated_ms,
    )
