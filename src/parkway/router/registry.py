"""The registry: which endpoints exist, in the store, for every process to see."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import replace

from sqlalchemy import Connection, Row, delete, select
from sqlalchemy.dialects import postgresql, sqlite

from parkway.core.errors import InvalidRequest
from parkway.router.endpoint import Endpoint, EndpointSource
from parkway.store.revisions import bump
from parkway.store.schema import endpoints as table
from parkway.store.sql import Database

log = logging.getLogger(__name__)

TOPIC = "endpoints"  # of store.revisions

_FIELDS = ("endpoint_id", "model", "url", "upstream_model", "weight", "state", "api_key_env", "source")


Noted = Callable[[Connection, str, str], None]


class Registry:
    """The endpoints in the database. Every change raises the topic `endpoints`, by which each gateway hears of it.

    The writing methods and `list` wait for the database: they are for commands and the supervisor, not for an
    event loop.

    Args:
        noted: Told of every change inside of its transaction: the connection, what was done, to which endpoints.
    """

    def __init__(self, database: Database, noted: Noted | None = None) -> None:
        self._database = database
        self._noted = noted or _unnoted

    def put(self, endpoint: Endpoint) -> None:
        """Adds `endpoint`, or replaces the one that has its id.

        An engine that is gone for the moment stays, with the state `down`: then its callers learn that the model is
        unavailable, not that it does not exist.
        """
        with self._database.begin() as connection:
            _upsert(connection, endpoint)
            bump(connection, TOPIC)
            self._noted(connection, "endpoint.put", _told(endpoint))

    def remove(self, endpoint_id: str) -> bool:
        """Forgets an endpoint; whether there was one."""
        with self._database.begin() as connection:
            removed = connection.execute(delete(table).where(table.c.endpoint_id == endpoint_id)).rowcount > 0
            if removed:
                bump(connection, TOPIC)
                self._noted(connection, "endpoint.remove", endpoint_id)
        return removed

    def replace(self, source: EndpointSource, endpoints: Iterable[Endpoint]) -> None:
        """Makes `endpoints` all that `source` has, in one step: nobody sees a moment with half of them.

        An id that another source had passes to this one: the configuration may turn a local model into a remote one.
        """
        wanted = [replace(endpoint, source=source) for endpoint in endpoints]
        names = [endpoint.endpoint_id for endpoint in wanted]
        if twice := {name for name in names if names.count(name) > 1}:
            raise InvalidRequest(f"endpoint ids are given twice: {', '.join(sorted(twice))}", param="endpoint_id")
        with self._database.begin() as connection:
            connection.execute(delete(table).where(table.c.source == source, table.c.endpoint_id.not_in(names)))
            for endpoint in wanted:
                _upsert(connection, endpoint)
            bump(connection, TOPIC)
            self._noted(connection, "endpoint.replace", f"{source}: {', '.join(map(_told, wanted)) or 'none'}")

    def list(self) -> list[Endpoint]:
        """Every endpoint, by model and id."""
        with self._database.read() as connection:
            return self.read(connection)

    def read(self, connection: Connection) -> list[Endpoint]:
        """`list` inside the caller's transaction: `view.load(await database.run(registry.read, write=False))`.

        A row that makes no sense is left out and logged: one bad entry must not take all models away.
        """
        query = select(*(table.c[name] for name in _FIELDS)).order_by(table.c.model, table.c.endpoint_id)
        return [endpoint for row in connection.execute(query) if (endpoint := _endpoint(row)) is not None]


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
