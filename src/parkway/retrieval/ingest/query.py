"""Rows of a database, each a document. Read in transactions that may not write."""

from __future__ import annotations

import datetime
import decimal
import hashlib
import math
import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote, unquote

from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.exc import ArgumentError, InterfaceError, NoSuchModuleError, OperationalError, SQLAlchemyError

from parkway.core.errors import ConfigurationError, Unreadable
from parkway.retrieval.config import QueryConfig
from parkway.retrieval.document import Value
from parkway.retrieval.ingest.source import MAX_URI, Away, Content, Entry, Missing, SourceUnavailable, Unknown

_AT_ONCE = 200  # rows in memory
_KNOWN = frozenset(("id", "text", "title", "uri", "media_type", "access"))
_MOST_FACTS = 64


class Query:
    """A `Source` of what a query finds.

    Its uris are `sql:NAME/ID`. Where a row has a `uri` that is its metadata `link`: an address is no identity.
    """

    def __init__(
        self, config: QueryConfig, access: tuple[str, ...] | None = None, metadata: Mapping[str, Value] | None = None
    ) -> None:
        """Connects to nothing yet.

        Raises:
            ConfigurationError: The environment variable is not set or is no database's URL, or a driver is missing.
        """
        self.name = config.name
        self._config = config
        self._access = access
        self._metadata = dict(metadata or {})
        url = os.environ.get(config.url_env)
        if not url:
            raise ConfigurationError(f"query.url_env: the environment variable {config.url_env} is not set")
        try:
            self._engine = _engine(url, config.timeout_s)
        except (ArgumentError, NoSuchModuleError, ValueError, ImportError) as error:
            # Without the value: it may hold a password.
            raise ConfigurationError(
                f"query.url_env: {config.url_env} is not the URL of a database that can be reached from here "
                f"({type(error).__name__}); examples: postgresql+psycopg://user@host/name, sqlite:////var/lib/x.db"
            ) from error

    def entries(self) -> Iterator[Entry | Unknown]:
        with self._reading() as connection:
            found = connection.execution_options(stream_results=True, yield_per=_AT_ONCE).execute(
                text(self._config.sql.replace(":", "\\:"))
            )
            missing = {"id", "text"} - {name.lower() for name in found.keys()}  # noqa: SIM118 - of rows, not of a dict
            if missing:
                raise SourceUnavailable(
                    f"the query {self.name} has no column {' and no column '.join(sorted(missing))}"
                )
            for row in found.mappings():
                values = {name.lower(): value for name, value in row.items()}
                if values["id"] is None:
                    yield Unknown(f"sql:{self.name}/", "has a row without an id")
                else:
                    yield self._entry(values)

    def read(self, uri: str, most: int) -> Content:
        identifier = unquote(uri.removeprefix(f"sql:{self.name}/"))
        values = self._row(identifier)
        body = values["text"]
        data = (
            bytes(body)
            if isinstance(body, bytes | bytearray | memoryview)
            else str(body or "").encode("utf-8", "replace")
        )
        if len(data) > most:
            raise Unreadable(f"is larger than {most:,} bytes ({len(data):,}); `parsing.max_bytes` sets the limit")
        media_type = str(values.get("media_type") or "") or ("" if isinstance(body, bytes) else "text/plain")
        return Content(data, identifier, media_type, str(values.get("title") or ""), self._entry(values))

    def _row(self, identifier: str) -> dict[str, Any]:
        """The row with this id, whatever type ids have."""
        query = self._config.sql.replace(":", "\\:")
        with self._reading() as connection:
            # The plain comparison can use an index of the table.
            for compared in ("id = :id", "CAST(id AS VARCHAR(1024)) = :id"):
                wanted = text(f"SELECT * FROM ({query}) AS documents WHERE {compared}")  # noqa: S608 - as configured
                try:
                    with connection.begin_nested():
                        row = connection.execute(wanted, {"id": identifier}).mappings().first()
                except SQLAlchemyError:
                    if compared.startswith("CAST"):
                        raise
                    continue
                if row is not None:
                    return {name.lower(): value for name, value in row.items()}
        raise Missing(identifier)

    def _entry(self, values: dict[str, Any]) -> Entry:
        body = values["text"]
        digest = hashlib.sha256()
        facts: dict[str, Value] = {}
        for name, value in sorted(values.items()):
            said = repr(bytes(value) if isinstance(value, memoryview) else value)
            digest.update(f"{name}\0{said}\0".encode("utf-8", "replace"))
            if name not in _KNOWN and (plain := _plain(value)) is not None and len(facts) < _MOST_FACTS:
                facts[name] = plain
        if values.get("uri"):
            facts["link"] = str(values["uri"])
        access = self._access
        if "access" in values:
            # A row that says nothing is for nobody: who gave the column means to say it of each.
            access = tuple(part.strip() for part in str(values["access"] or "").split(",") if part.strip())
        uri = f"sql:{self.name}/{quote(str(values['id']), safe='')}"
        return Entry(
            uri[:MAX_URI],
            digest.hexdigest()[:32],
            title=str(values.get("title") or "")[:500],
            media_type=str(values.get("media_type") or ""),
            bytes=len(body or ""),
            access=access,
            metadata={**facts, **self._metadata},
            refused="has an id that is too long" if len(uri) > MAX_URI else "",
        )

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        try:
            with self._engine.connect() as connection:
                if self._engine.dialect.name == "sqlite":
                    connection.exec_driver_sql("PRAGMA query_only = 1")
                elif self._engine.dialect.name in ("postgresql", "mysql", "mariadb"):
                    connection.exec_driver_sql("SET TRANSACTION READ ONLY")
                yield connection
                connection.rollback()
        except SQLAlchemyError as error:
            reason = str(getattr(error, "orig", None) or type(error).__name__).strip().splitlines()[0]
            kind = Away if isinstance(error, OperationalError | InterfaceError) else SourceUnavailable
            raise kind(f"the query {self.name} failed: {reason}") from error


def _engine(url: str, timeout_s: float) -> Engine:
    if url.startswith(("postgresql://", "postgres://")):
        url = f"postgresql+psycopg://{url.split('://', 1)[1]}"
    more: dict[str, Any] = {}
    if url.startswith("postgresql+psycopg://"):
        more = {"connect_timeout": 10, "options": f"-c statement_timeout={int(timeout_s * 1000)}"}
    elif url.startswith("sqlite:"):
        more = {"timeout": min(timeout_s, 30.0)}
    return create_engine(url, pool_size=2, max_overflow=2, pool_pre_ping=True, connect_args=more)


def _plain(value: Any) -> Value | None:
    """A value as metadata; None of what filters cannot compare."""
    match value:
        case bool() | int():
            return value
        case float():
            return value if math.isfinite(value) else None
        case str():
            return value[:1000]
        case decimal.Decimal():
            return float(value) if value.is_finite() else None
        case datetime.datetime() | datetime.date():
            return value.isoformat()
        case uuid.UUID():
            return str(value)
        case list() if all(isinstance(one, str) for one in value):
            return value[:256]
        case _:
            return None
