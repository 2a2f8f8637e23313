"""The SQLite half of the store: how a connection is set up and what is checked at start."""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import OperationalError

from parkway.core.errors import StartupError

WRITE_OPTIONS: dict[str, Any] = {"intent": "write"}
READ_OPTIONS: dict[str, Any] = {"intent": "read"}

_KEEP_WAL_BYTES = 64 * 1024 * 1024


def create(url: URL, *, threads: int, lock_timeout_s: float) -> Engine:
    """An engine on the file of `url`. The file is made, readable by its owner alone, if it is not there.

    Raises:
        StartupError: `url` names no file, or the file cannot be made or opened for writing.
    """
    if url.database in (None, "", ":memory:"):
        raise StartupError(
            "store.url: an SQLite database in memory cannot be shared by Parkway's processes; "
            "name a file, such as sqlite:////var/lib/parkway/parkway.db"
        )
    path = Path(str(url.database))
    try:
        # Made here and not by SQLite so that nobody else can read it; SQLite gives its side files the same mode.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise StartupError(f"The database file {path} cannot be opened for writing: {error.strerror}") from error
    engine = create_engine(url, pool_size=threads, max_overflow=threads, pool_timeout=lock_timeout_s)
    event.listen(engine, "connect", _Connect(lock_timeout_s))
    event.listen(engine, "begin", _begin)
    return engine


def check(engine: Engine, *, lock_timeout_s: float) -> None:
    """Sees that the file is a database that can be written to, and turns on write-ahead logging.

    Raises:
        sqlalchemy.exc.DBAPIError: It is not.
    """
    deadline = time.monotonic() + lock_timeout_s
    while True:
        try:
            _write_ahead(engine)
            with engine.begin():  # takes the write lock, which a read-only file refuses
                return
        except OperationalError as error:
            # The switch to write-ahead logging does not wait for other processes by itself.
            if "locked" not in str(error.orig) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def lock_migration(connection: Connection) -> None:
    """Nothing to do: the transaction's BEGIN IMMEDIATE shuts out every other writer."""


def maintain(engine: Engine) -> None:
    """Refreshes the planner's statistics and gives the space of the write-ahead log back, if nobody needs it now."""
    # The checkpoint keeps writers out while it waits for readers: here it waits for nobody, and is tried again later.
    with engine.execution_options(intent="none").connect() as connection:
        connection.exec_driver_sql("PRAGMA query_only = 0")
        connection.exec_driver_sql("PRAGMA optimize")
        patience_ms = connection.exec_driver_sql("PRAGMA busy_timeout").scalar_one()
        connection.exec_driver_sql("PRAGMA busy_timeout = 0")
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.exec_driver_sql(f"PRAGMA busy_timeout = {patience_ms}")


def _write_ahead(engine: Engine) -> None:
    with engine.execution_options(intent="none").connect() as connection:
        # Only if need be: the switch wants the database for itself.
        if connection.exec_driver_sql("PRAGMA journal_mode").scalar_one() != "wal":
            connection.exec_driver_sql("PRAGMA journal_mode = WAL")


class _Connect:
    """Sets up each new connection."""

    def __init__(self, lock_timeout_s: float) -> None:
        self._lock_timeout_ms = int(lock_timeout_s * 1000)

    def __call__(self, raw: sqlite3.Connection, _record: object) -> None:
        raw.isolation_level = None  # the driver begins no transaction of its own; `_begin` does
        raw.execute(f"PRAGMA busy_timeout = {self._lock_timeout_ms}")
        raw.execute("PRAGMA foreign_keys = ON")
        raw.execute("PRAGMA synchronous = NORMAL")  # in WAL mode: safe from corruption, a power cut may lose the last
        raw.execute(f"PRAGMA journal_size_limit = {_KEEP_WAL_BYTES}")


def _begin(connection: Connection) -> None:
    """Begins as the transaction means to go on.

    A writer takes the write lock at once: a transaction that reads first and then wants to write would fail, without
    waiting, if another has written in between.
    """
    match connection.get_execution_options().get("intent"):
        case "read":
            connection.exec_driver_sql("PRAGMA query_only = 1")
            connection.exec_driver_sql("BEGIN")
        case "none":  # pragmas that must stand outside a transaction
            pass
        case _:
            connection.exec_driver_sql("PRAGMA query_only = 0")
            connection.exec_driver_sql("BEGIN IMMEDIATE")
