"""The database: SQLite or PostgreSQL behind one contract of transactions, time limits and errors."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, TypeVar

from sqlalchemy import URL, Connection, Engine, make_url
from sqlalchemy.exc import (
    ArgumentError,
    DatabaseError,
    DataError,
    DBAPIError,
    IntegrityError,
    InterfaceError,
    ProgrammingError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout

from parkway.core.errors import StartupError, StoreUnavailable
from parkway.store import postgres, sqlite
from parkway.store.config import StoreConfig
from parkway.store.schema import REVISION
from parkway.store.threads import Threads
from parkway.store.version import current_revision

T = TypeVar("T")


class Database:
    """The one way to the tables of `schema.py`.

    Synchronous code uses `begin` and `read`; coroutines use `run`, which does the same on a thread.

    What both databases promise: a transaction happens whole or not at all; a reader sees one moment. What PostgreSQL
    does not promise and SQLite does is that writers come one after the other: a writer that decides from what it has
    read locks the row it read (`select(...).with_for_update()`, which SQLite ignores).
    """

    def __init__(self, engine: Engine, config: StoreConfig) -> None:
        self.dialect: Literal["sqlite", "postgresql"] = "sqlite" if engine.dialect.name == "sqlite" else "postgresql"
        self._config = config
        self._engine = engine
        half = sqlite if self.dialect == "sqlite" else postgres
        self._lock_migration = half.lock_migration
        self._writer = engine.execution_options(**half.WRITE_OPTIONS)
        self._reader = engine.execution_options(**half.READ_OPTIONS)
        # SQLite has one writer at a time. Threads of this process queue here, where a turn comes at once; in SQLite
        # itself they would poll with sleeps of up to 0.1 s.
        self._turn = threading.Lock() if self.dialect == "sqlite" else None
        self._threads = Threads("store", size=config.threads, waiting=config.waiting)

    @classmethod
    def open(cls, url: str, config: StoreConfig | None = None) -> Database:
        """Connects to `url`: `sqlite:///relative.db`, `sqlite:////absolute.db` or `postgresql://user@host/name`.

        Raises:
            StartupError: The URL is none of these, or the database does not answer or cannot be written to.
        """
        config = config or StoreConfig()
        parsed = _parse(url)
        try:
            if parsed.get_backend_name() == "sqlite":
                engine = sqlite.create(parsed, threads=config.threads, lock_timeout_s=config.lock_timeout_s)
                sqlite.check(engine, lock_timeout_s=config.lock_timeout_s)
            else:
                engine = postgres.create(
                    parsed,
                    threads=config.threads,
                    connect_timeout_s=config.connect_timeout_s,
                    statement_timeout_s=config.statement_timeout_s,
                )
                postgres.check(engine)
        except (DBAPIError, PoolTimeout) as error:
            reason = str(error.orig if isinstance(error, DBAPIError) else error).strip().rstrip(".?")
            raise StartupError(
                f"The database {_shown(parsed)} cannot be used: {reason}. Its address is store.url in the configuration"
            ) from error
        return cls(engine, config)

    def migrate(self) -> None:
        """Brings the tables to the newest form. Any number of processes may do so at once.

        Raises:
            StartupError: A newer Parkway made the tables, or something else made tables with our names, or the
                database failed.
        """
        try:
            with self.read() as connection:
                if current_revision(connection) == REVISION:
                    return
            # Alembic takes a tenth of a second and more to import, and almost every start finds nothing to do.
            from parkway.store.migrations import upgrade

            with self.begin() as connection:
                self._lock_migration(connection)
                upgrade(connection)
        except StoreUnavailable as error:
            raise StartupError(f"{_shown(self._engine.url)}: {error.message}") from error

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """One transaction that may write; committed at the end, rolled back if the block raises.

        Raises:
            StoreUnavailable: The database failed or took too long; nothing was written, unless the connection broke
                in the commit itself. Its `__cause__` says why in words that may name hosts and users.
        """
        with self._in_turn(), _translated(), self._writer.begin() as connection:
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """One transaction that sees one moment of the database; an attempt to write in it fails.

        Raises:
            StoreUnavailable: As for `begin`.
        """
        with _translated(), self._reader.begin() as connection:
            yield connection

    async def run(self, work: Callable[[Connection], T], *, write: bool = True, timeout_s: float = 10.0) -> T:
        """`work(connection)` in a transaction of its own on a thread: `begin`, or `read` where `write` is false.

        A caller that is cancelled or out of time leaves nothing behind, but for the one whose commit had begun.

        Raises:
            StoreUnavailable: As for `begin`, or it took longer than `timeout_s`, or too many wait already.
        """
        left = threading.Event()

        def transaction() -> T:
            with self.begin() if write else self.read() as connection:
                result = work(connection)
                if left.is_set():
                    raise StoreUnavailable("The caller left.")  # nobody hears it; it rolls back
            return result

        try:
            return await self._on_thread(transaction, timeout_s)
        finally:
            left.set()

    async def maintain(self, *, timeout_s: float = 60.0) -> None:
        """What a database wants done for it now and then. PostgreSQL does it by itself.

        Raises:
            StoreUnavailable: As for `begin`.
        """
        if self.dialect == "sqlite":
            await self._on_thread(self._maintain, timeout_s)

    def close(self) -> None:
        """Waits a few seconds for what is under way and closes every connection."""
        self._threads.close(timeout_s=self._config.lock_timeout_s)
        self._engine.dispose()

    async def _on_thread(self, work: Callable[[], T], timeout_s: float) -> T:
        try:
            return await self._threads.run(work, timeout_s=timeout_s)
        except TimeoutError as error:
            message = f"The store did not answer within {timeout_s:g} s; try again."
            raise StoreUnavailable(message, retry_after_s=1.0) from error

    def _maintain(self) -> None:
        with self._in_turn(), _translated():
            sqlite.maintain(self._engine)

    @contextmanager
    def _in_turn(self) -> Iterator[None]:
        if self._turn is None:
            yield
            return
        if not self._turn.acquire(timeout=self._config.lock_timeout_s):
            raise StoreUnavailable("The store is busy with another write; try again.", retry_after_s=1.0)
        try:
            yield
        finally:
            self._turn.release()

    def __repr__(self) -> str:
        return f"Database({_shown(self._engine.url)})"


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:
        # Without the value: it may hold a password, and where the URL is broken nobody can tell which part.
        raise StartupError(
            "store.url is not a database URL; examples: sqlite:////var/lib/parkway/parkway.db, "
            "postgresql://user:password@host:5432/parkway"
        ) from error
    if parsed.drivername not in ("sqlite", "postgresql", "postgres", "postgresql+psycopg"):
        raise StartupError(f"store.url: {parsed.drivername}:// is not supported; sqlite:/// and postgresql:// are")
    return parsed.set(drivername="sqlite" if parsed.drivername == "sqlite" else "postgresql+psycopg")


def _shown(url: URL) -> str:
    """The URL without what is secret in it: the query may hold a password too."""
    short = url.set(drivername=url.get_backend_name(), query=_NO_QUERY)
    return short.render_as_string(hide_password=True)


_NO_QUERY: Mapping[str, Any] = {}


@contextmanager
def _translated() -> Iterator[None]:
    """Turns a failure of the database, as opposed to one of our statements, into `StoreUnavailable`."""
    try:
        yield
    except (IntegrityError, DataError, ProgrammingError):
        raise
    except (DatabaseError, InterfaceError) as error:
        raise StoreUnavailable(f"The store failed: {_reason(error)}; try again.", retry_after_s=1.0) from error
    except PoolTimeout as error:
        raise StoreUnavailable("Every connection to the store is in use; try again.", retry_after_s=1.0) from error


def _reason(error: DBAPIError) -> str:
    """What may be told to a client: SQLite's own short words, but not PostgreSQL's, which name hosts and users."""
    if isinstance(error, InterfaceError) or error.orig is None:
        return "the connection was lost"
    if (state := getattr(error.orig, "sqlstate", None)) is not None:
        return f"PostgreSQL error {state}"
    if type(error.orig).__module__.startswith("sqlite3"):
        return str(error.orig)
    return "the server does not answer"
