"""The registry: which endpoints exist, for every process to see. This one lies in the store, another in etcd.

Several Parkways may share one registry. Each publishes under an identity of its own, so that none overwrites what
another has; the engines of a machine are used by their own Parkway alone, for they listen on the loopback.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Protocol

from sqlalchemy import Connection, Row, delete, or_, select
from sqlalchemy.dialects import postgresql, sqlite

from parkway.core.errors import InvalidRequest, StoreUnavailable
from parkway.router.endpoint import Endpoint, EndpointSource
from parkway.store.revisions import bump
from parkway.store.schema import endpoints as table
from parkway.store.sql import Database

log = logging.getLogger(__name__)

TOPIC = "endpoints"  # of store.revisions

_FIELDS = ("endpoint_id", "model", "url", "upstream_model", "weight", "state", "api_key_env", "source")


Noted = Callable[[Connection, str, str], None]

_MARK = "~"
"""Between an endpoint's id and its publisher. No name of a model has it."""


class EndpointRegistry(Protocol):
    """What a registry can do, wherever it lies. The methods wait: they are for commands and the supervisor."""

    def put(self, endpoint: Endpoint) -> None: ...

    def remove(self, endpoint_id: str) -> bool: ...

    def replace(self, source: EndpointSource, endpoints: Iterable[Endpoint]) -> None: ...

    def list(self) -> list[Endpoint]: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Entry:
    """An endpoint as it was published; `publisher` is empty where nobody in particular did."""

    publisher: str
    endpoint: Endpoint


def visible(entries: Iterable[Entry], publisher: str) -> list[Endpoint]:
    """The endpoints that `publisher` can use, by model and id.

    Its own keep their ids; another's have its name behind them. A server that several publish counts once. Engines
    of other Parkways are left out.
    """
    found: dict[tuple[str, str, str], Endpoint] = {}
    for entry in sorted(entries, key=lambda each: (each.publisher not in ("", publisher), each.publisher)):
        endpoint, ours = entry.endpoint, entry.publisher in ("", publisher)
        if endpoint.source == "local" and not ours:
            continue
        if ours:
            # Listed twice by one hand may be meant: it has two ids then.
            key = (endpoint.model, endpoint.base, endpoint.endpoint_id)
            found[key] = endpoint
            continue
        if any(key[:2] == (endpoint.model, endpoint.base) for key in found):
            continue
        named = f"{endpoint.endpoint_id}{_MARK}{entry.publisher}"
        found[endpoint.model, endpoint.base, named] = replace(endpoint, endpoint_id=named)
    return sorted(found.values(), key=lambda endpoint: (endpoint.model, endpoint.endpoint_id))


def distinct(endpoints: Iterable[Endpoint]) -> list[Endpoint]:
    """The endpoints as a list.

    Raises:
        InvalidRequest: Two have the same id.
    """
    wanted = list(endpoints)
    names = [endpoint.endpoint_id for endpoint in wanted]
    if twice := {name for name in names if names.count(name) > 1}:
        raise InvalidRequest(f"endpoint ids are given twice: {', '.join(sorted(twice))}", param="endpoint_id")
    return wanted


class Registry:
    """The endpoints in the database. Every change raises the topic `endpoints`, by which each gateway hears of it.

    The writing methods and `list` wait for the database: they are for commands and the supervisor, not for an
    event loop.

    Args:
        noted: Told of every change inside of its transaction: the connection, what was done, to which endpoints.
        publisher: Who writes, where others write too; empty where the database is ours alone.
    """

    def __init__(self, database: Database, noted: Noted | None = None, *, publisher: str = "") -> None:
        self._database = database
        self._noted = noted or _unnoted
        self._publisher = publisher

    def put(self, endpoint: Endpoint) -> None:
        """Adds `endpoint`, or replaces the one that has its id.

        An engine that is gone for the moment stays, with the state `down`: then its callers learn that the model is
        unavailable, not that it does not exist.
        """
        with self._database.begin() as connection:
            _upsert(connection, self._stored(endpoint))
            bump(connection, TOPIC)
            self._noted(connection, "endpoint.put", _told(endpoint))

    def remove(self, endpoint_id: str) -> bool:
        """Forgets an endpoint; whether there was one."""
        with self._database.begin() as connection:
            names = {endpoint_id, f"{endpoint_id}{_MARK}{self._publisher}" if self._publisher else endpoint_id}
            removed = connection.execute(delete(table).where(table.c.endpoint_id.in_(names))).rowcount > 0
            if removed:
                bump(connection, TOPIC)
                self._noted(connection, "endpoint.remove", endpoint_id)
        return removed

    def replace(self, source: EndpointSource, endpoints: Iterable[Endpoint]) -> None:
        """Makes `endpoints` all that we have of `source`, in one step: nobody sees a moment with half of them.

        An id that another source had passes to this one: the configuration may turn a local model into a remote one.
        """
        wanted = [self._stored(each) for each in distinct(replace(endpoint, source=source) for endpoint in endpoints)]
        names = [endpoint.endpoint_id for endpoint in wanted]
        ours = delete(table).where(table.c.source == source, table.c.endpoint_id.not_in(names))
        if self._publisher:
            # Without any publisher: written before there were any.
            marked = table.c.endpoint_id.contains(_MARK, autoescape=True)
            mine = table.c.endpoint_id.endswith(f"{_MARK}{self._publisher}", autoescape=True)
            ours = ours.where(or_(mine, ~marked))
        with self._database.begin() as connection:
            connection.execute(ours)
            for endpoint in wanted:
                _upsert(connection, endpoint)
            bump(connection, TOPIC)
            self._noted(connection, "endpoint.replace", f"{source}: {', '.join(map(_told, wanted)) or 'none'}")

    def close(self) -> None:
        """Takes back what only we keep alive, where others use the registry too."""
        if self._publisher:
            with suppress(StoreUnavailable):
                self.replace("config", ())

    def list(self) -> list[Endpoint]:
        """Every endpoint, by model and id."""
        with self._database.read() as connection:
            return self.read(connection)

    def read(self, connection: Connection) -> list[Endpoint]:
        """`list` inside the caller's transaction: `view.load(await database.run(registry.read, write=False))`.

        A row that makes no sense is left out and logged: one bad entry must not take all models away.
        """
        query = select(*(table.c[name] for name in _FIELDS)).order_by(table.c.model, table.c.endpoint_id)
        found = [endpoint for row in connection.execute(query) if (endpoint := _endpoint(row)) is not None]
        return visible([_entry(endpoint) for endpoint in found], self._publisher)

    def _stored(self, endpoint: Endpoint) -> Endpoint:
        if not self._publisher or endpoint.source == "api":
            return endpoint
        return replace(endpoint, endpoint_id=f"{endpoint.endpoint_id}{_MARK}{self._publisher}")


def _entry(stored: Endpoint) -> Entry:
    endpoint_id, mark, publisher = stored.endpoint_id.rpartition(_MARK)
    if not mark or stored.source == "api":
        return Entry("", stored)
    return Entry(publisher, replace(stored, endpoint_id=endpoint_id))


def _unnoted(connection: Connection, action: str, detail: str) -> None:
    """For commands and tests that change nothing that matters."""


def _told(endpoint: Endpoint) -> str:
    return f"{endpoint.endpoint_id} ({endpoint.model}, {endpoint.state})"


def _endpoint(row: Row[tuple[object, ...]]) -> Endpoint | None:
    try:
        return Endpoint(**row._mapping)  # pyright: ignore[reportArgumentType] - `Endpoint` checks what it is given
    except InvalidRequest as error:
        log.error("the registry has an entry that cannot be used: %s", error.message)
        return None


def _upsert(connection: Connection, endpoint: Endpoint) -> None:
    values = {name: getattr(endpoint, name) for name in _FIELDS}
    values["updated_ms"] = time.time_ns() // 1_000_000
    insert = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    statement = insert(table).values(**values, created_ms=values["updated_ms"])
    connection.execute(statement.on_conflict_do_update(index_elements=[table.c.endpoint_id], set_=values))
