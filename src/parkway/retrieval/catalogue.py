"""What documents there are and how far each is, in SQL.

The catalogue says what shall be in the index; the index follows. A document is `waiting` from the moment that it is
known to be new or changed, `removing` once it is gone, and becomes something else only when the index has it so.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, and_, bindparam, case, delete, func, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from parkway.core.knowledge import State
from parkway.retrieval.document import Value
from parkway.retrieval.ingest.source import Entry, Unknown
from parkway.store.schema import knowledge_documents as documents
from parkway.store.sql import Database

SLOTS = 1 << 20
MAX_WAIT_MS = 300_000
"""Before something is tried again. What is due later than that was noted before the clock was set back."""

_PAGE = 500


@dataclass(frozen=True, slots=True)
class Partition:
    """A share of every collection: of `of` partitions the one with this number, from 0."""

    number: int = 0
    of: int = 1

    def has(self, document_id: str) -> bool:
        return slot_of(document_id) % self.of == self.number


@dataclass(frozen=True, slots=True)
class Document:
    """A row of the catalogue, as somebody who works on it sees it."""

    document_id: str
    collection: str
    source: str
    uri: str
    title: str
    media_type: str
    access: tuple[str, ...] | None
    metadata: dict[str, Value]
    fingerprint: str
    recipe: str
    version: str
    passages: int
    state: State
    change: int
    attempt: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the work on a document.

    Attributes:
        state: `waiting`: it is to be tried again at `due_ms`; `removing`: it is removed from the index, forget it.
        version: The one that the index has now; empty: none.
        characters: Of its text; None: as many as before.
        again: Of what is set aside: whether the next scan takes it for changed.
    """

    document: Document
    state: State
    version: str = ""
    passages: int = 0
    reason: str = ""
    title: str = ""
    content_hash: str = ""
    bytes: int | None = None
    characters: int | None = None
    recipe: str = ""
    due_ms: int = 0
    again: bool = False


@dataclass(slots=True)
class Changes:
    """What a scan found."""

    new: int = 0
    changed: int = 0
    gone: int = 0
    same: int = 0
    refused: int = 0
    unknown: list[Unknown] = field(default_factory=list[Unknown])

    def __add__(self, other: Changes) -> Changes:
        return Changes(
            self.new + other.new,
            self.changed + other.changed,
            self.gone + other.gone,
            self.same + other.same,
            self.refused + other.refused,
            self.unknown + other.unknown,
        )


def document_id(collection: str, source: str, uri: str) -> str:
    """The same for as long as a source has a document of this name."""
    return hashlib.sha256(f"{collection}\n{source}\n{uri}".encode("utf-8", "replace")).hexdigest()[:32]


def slot_of(identifier: str) -> int:
    """By which documents are shared out among partitions."""
    return int(identifier[:8], 16) % SLOTS


class Catalogue:
    """The documents of an installation. Blocking; for any number of threads and processes.

    Raises, all of it:
        StoreUnavailable: The database does not answer; nothing was changed.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    # What sources have

    def note(self, collection: str, source: str, entries: Sequence[Entry], now_ms: int, *, urgent: bool) -> Changes:
        """Takes down what a source says that it has: what is new or changed waits from now on. One transaction.

        Args:
            entries: At most some hundreds.
            urgent: Those before others that wait.
        """
        found = Changes()
        by_id = {document_id(collection, source, entry.uri): entry for entry in entries}
        c = documents.c
        with self._database.begin() as connection:
            query = select(c.document_id, c.fingerprint, c.state, c.access, c.metadata)
            rows = connection.execute(query.where(c.document_id.in_(by_id)).with_for_update()).all()
            known = {row.document_id: row for row in rows}
            new: list[dict[str, Any]] = []
            for identifier, entry in by_id.items():
                row = known.get(identifier)
                values = _said(entry) | {"due_ms": 0 if urgent else now_ms, "updated_ms": now_ms}
                found.refused += bool(entry.refused)
                if row is None:
                    found.new += 1
                    new.append(_fresh(identifier, collection, source, entry.uri, values, now_ms))
                elif row.state != "removing" and _same(row, values):
                    found.same += 1
                else:
                    found.changed += 1
                    values |= {"state": "waiting", "reason": "", "attempt": 0, "change": c.change + 1}
                    values["title"] = values["title"] or c.title  # which reading it found
                    connection.execute(update(documents).where(c.document_id == identifier).values(**values))
            if new:
                # Two may look at the same path at once; PostgreSQL would have the second fail.
                add = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
                connection.execute(add(documents).on_conflict_do_nothing(), new)
        return found

    def gone(self, collection: str, identifiers: Collection[str], now_ms: int) -> int:
        """Says that documents are not there any more; returns how many that is news of."""
        c = documents.c
        mine = and_(c.collection == collection, c.document_id.in_(identifiers), c.state != "removing")
        values = {"state": "removing", "reason": "", "attempt": 0, "due_ms": 0, "updated_ms": now_ms}
        with self._database.begin() as connection:
            return connection.execute(update(documents).where(mine).values(change=c.change + 1, **values)).rowcount

    def sources(self, collection: str) -> list[str]:
        """Of which there are documents."""
        with self._database.read() as connection:
            query = select(documents.c.source).where(documents.c.collection == collection).distinct()
            return list(connection.execute(query).scalars())

    def below(
        self, collection: str, source: str, folder: str, after: str = "", *, until_ms: int | None = None
    ) -> list[tuple[str, str]]:
        """A page of the ids and uris of a source's documents, in the order of the uris, after the uri `after`.

        Those that are on their way out are left out.

        Args:
            folder: Only those whose uris go on from this and a `/`; empty: all.
            until_ms: Only those of which nothing was noted since.
        """
        c = documents.c
        query = select(c.document_id, c.uri).where(c.collection == collection, c.source == source)
        query = query.where(c.uri > (after or (f"{folder}/" if folder else "")), c.state != "removing")
        if folder:
            query = query.where(c.uri < f"{folder}0")  # which is the character after `/`
        if until_ms is not None:
            query = query.where(c.updated_ms <= until_ms)
        with self._database.read() as connection:
            return [(row[0], row[1]) for row in connection.execute(query.order_by(c.uri).limit(_PAGE))]

    # Work

    def claim(self, collection: str, partition: Partition, limit: int, now_ms: int, lease_ms: int) -> list[Document]:
        """Takes documents that wait, the most urgent first; nobody else gets them before the lease is over."""
        c = documents.c
        found: list[Document] = []
        for state in ("removing", "waiting"):  # one at a time: the index has them in order then, and nothing is sorted
            due = or_(c.due_ms <= now_ms, c.due_ms > now_ms + MAX_WAIT_MS)
            query = select(documents).where(c.collection == collection, c.state == state, due)
            query = query.where(c.lease_ms <= now_ms, _of(partition)).order_by(c.due_ms).limit(limit - len(found))
            with self._database.read() as connection:  # mostly there is nothing, and nobody is kept waiting for that
                if connection.execute(query.limit(1)).first() is None:
                    continue
            with self._database.begin() as connection:
                rows = connection.execute(query.with_for_update(skip_locked=True)).all()
                taken = [row.document_id for row in rows]
                connection.execute(update(documents).where(c.document_id.in_(taken)).values(lease_ms=now_ms + lease_ms))
            found.extend(_document(row) for row in rows)
            if len(found) >= limit:
                break
        return found

    def release(self, collection: str, partition: Partition) -> None:
        """Ends the leases of those who are no more. For the owner of a partition, who is the only one, at its start."""
        mine = and_(documents.c.collection == collection, documents.c.lease_ms > 0, _of(partition))
        with self._database.begin() as connection:
            connection.execute(update(documents).where(mine).values(lease_ms=0))

    def finish(self, outcomes: Sequence[Outcome], now_ms: int) -> None:
        """Takes down what became of documents, in one transaction.

        One that changed meanwhile keeps waiting, or being removed; what the index has of it is taken down all the same.
        """
        gone = [one.document for one in outcomes if one.state == "removing"]
        with self._database.begin() as connection:
            if gone:
                both = [{"b_id": one.document_id, "b_change": one.change} for one in gone]
                c = documents.c
                this = and_(c.document_id == bindparam("b_id"), c.change == bindparam("b_change"))
                connection.execute(delete(documents).where(this), both)
                connection.execute(update(documents).where(c.document_id == bindparam("b_id")).values(_NOTHING), both)
            for outcome in outcomes:
                if outcome.state != "removing":
                    self._finish(connection, outcome, now_ms)

    def _finish(self, connection: Connection, outcome: Outcome, now_ms: int) -> None:
        c = documents.c
        known = outcome.document
        still = c.change == known.change
        values: dict[str, Any] = {
            "lease_ms": 0,
            "updated_ms": now_ms,
            "state": case((still, outcome.state), else_=c.state),
            "reason": case((still, outcome.reason), else_=c.reason),
        }
        if outcome.state == "waiting":
            values["attempt"] = case((still, known.attempt + 1), else_=c.attempt)
            values["due_ms"] = case((still, outcome.due_ms), else_=c.due_ms)
        else:
            values |= {"version": outcome.version, "passages": outcome.passages, "recipe": outcome.recipe}
            values |= {"content_hash": outcome.content_hash, "attempt": 0}
            if outcome.title:
                values["title"] = outcome.title
            if outcome.characters is not None:
                values["characters"] = outcome.characters
            if outcome.again:
                values["fingerprint"] = case((still, ""), else_=c.fingerprint)
            if outcome.bytes is not None:
                values["bytes"] = case((still, outcome.bytes), else_=c.bytes)
        connection.execute(update(documents).where(c.document_id == known.document_id).values(**values))

    # At the start

    def renew(self, collection: str, partition: Partition, recipe: str, now_ms: int) -> int:
        """Has everything wait that was read, cut or embedded in another way; how many that is."""
        c = documents.c
        old = and_(c.collection == collection, c.state.in_(("indexed", "set_aside")), c.recipe != recipe)
        values = {"state": "waiting", "reason": "", "attempt": 0, "due_ms": now_ms, "updated_ms": now_ms}
        with self._database.begin() as connection:
            changed = update(documents).where(old, _of(partition))
            return connection.execute(changed.values(change=c.change + 1, **values)).rowcount

    def page(self, collection: str, partition: Partition, after: str = "") -> list[Document]:
        """The next documents, in the order of their ids."""
        c = documents.c
        query = select(documents).where(c.collection == collection, c.document_id > after, _of(partition))
        with self._database.read() as connection:
            return [_document(row) for row in connection.execute(query.order_by(c.document_id).limit(_PAGE))]

    def lost(self, identifiers: Collection[str], now_ms: int) -> None:
        """Has documents wait whose passages the index turned out not to have."""
        c = documents.c
        state = case((c.state == "removing", "removing"), else_="waiting")
        values = {"state": state, "version": "", "passages": 0, "due_ms": now_ms, "change": c.change + 1}
        with self._database.begin() as connection:
            connection.execute(update(documents).where(c.document_id.in_(identifiers)).values(**values))

    def retry(self, collection: str, now_ms: int) -> int:
        """Has everything tried again that was set aside; how many that is."""
        c = documents.c
        mine = and_(c.collection == collection, c.state == "set_aside")
        values = {"state": "waiting", "reason": "", "attempt": 0, "due_ms": now_ms, "updated_ms": now_ms}
        with self._database.begin() as connection:
            return connection.execute(update(documents).where(mine).values(change=c.change + 1, **values)).rowcount

    def unfinished(self, collection: str, partition: Partition, *, due_by_ms: int | None = None) -> int:
        """How many documents wait or are being removed; with `due_by_ms` those whose time has come by then."""
        c = documents.c
        query = select(func.count()).where(c.collection == collection, _of(partition))
        query = query.where(or_(c.state == "waiting", c.state == "removing"))
        if due_by_ms is not None:
            query = query.where(c.due_ms <= due_by_ms)
        with self._database.read() as connection:
            return connection.execute(query).scalar_one()


_NOTHING: dict[str, Any] = {"version": "", "passages": 0, "lease_ms": 0}


def _of(partition: Partition) -> Any:
    return documents.c.slot % partition.of == partition.number


def _said(entry: Entry) -> dict[str, Any]:
    """What of an entry stands in the catalogue; a new title always comes with a new fingerprint."""
    access = None if entry.access is None else msgspec.json.encode(sorted(set(entry.access))).decode()
    return {
        "title": entry.title.replace("\0", ""),
        "media_type": entry.media_type,
        "bytes": entry.bytes,
        "access": access,
        "metadata": msgspec.json.encode(entry.metadata, order="deterministic").decode(),
        "fingerprint": f"refused: {entry.refused}" if entry.refused else entry.fingerprint,
    }


def _same(row: Any, values: dict[str, Any]) -> bool:
    said = ("fingerprint", "access", "metadata")
    return all(getattr(row, key) == values[key] for key in said)


def _fresh(
    identifier: str, collection: str, source: str, uri: str, values: dict[str, Any], now_ms: int
) -> dict[str, Any]:
    nothing = {"recipe": "", "content_hash": "", "version": "", "passages": 0, "reason": ""}
    counts = {"change": 1, "attempt": 0, "lease_ms": 0, "created_ms": now_ms}
    whose = {"document_id": identifier, "collection": collection, "source": source, "uri": uri}
    return values | nothing | counts | whose | {"slot": slot_of(identifier), "state": "waiting"}


def _document(row: Row[Any]) -> Document:
    access: Iterable[str] | None = None if row.access is None else msgspec.json.decode(row.access, type=list[str])
    return Document(
        document_id=row.document_id,
        collection=row.collection,
        source=row.source,
        uri=row.uri,
        title=row.title,
        media_type=row.media_type,
        access=None if access is None else tuple(access),
        metadata=msgspec.json.decode(row.metadata, type=dict[str, Value]),
        fingerprint=row.fingerprint,
        recipe=row.recipe,
        version=row.version,
        passages=row.passages,
        state=row.state,
        change=row.change,
        attempt=row.attempt,
    )
