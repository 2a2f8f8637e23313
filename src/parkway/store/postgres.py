"""The PostgreSQL half of the store: how a connection is set up and what is checked at start."""

from __future__ import annotations

from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, text

from parkway.core.errors import StartupError

WRITE_OPTIONS: dict[str, Any] = {}
# What SQLite gives every reader: one moment of the database for the whole transaction.
READ_OPTIONS: dict[str, Any] = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}

_MIGRATION_LOCK = 0x7061726B776179  # "parkway"; advisory locks are numbers shared by all programs of a database


def create(url: URL, *, threads: int, connect_timeout_s: float, statement_timeout_s: float) -> Engine:
    """An engine on the server of `url`; connects to nothing yet. What the URL says overrides our settings.

    Raises:
        StartupError: The driver is not installed.
    """
    settings = {
        "application_name": "parkway",
        "connect_timeout": str(max(1, round(connect_timeout_s))),
        # A server that vanished without a word (power, network) is noticed within this time.
        "keepalives_idle": "5",
        "keepalives_interval": "2",
        "keepalives_count": "3",
        "tcp_user_timeout": str(round(statement_timeout_s * 1000)),
        "options": f"-c statement_timeout={round(statement_timeout_s * 1000)}",
    }
    try:
        return create_engine(
            url.set(drivername="postgresql+psycopg", query={**settings, **url.query}),
            pool_size=threads,
            max_overflow=threads,
            pool_timeout=connect_timeout_s,
            pool_pre_ping=True,  # a restarted server costs a new connection, not a failed request
        )
    except ModuleNotFoundError as error:
        raise StartupError("store.url names a PostgreSQL server: pip install 'parkway[postgres]' first") from error


def check(engine: Engine) -> None:
    """Sees that the server answers, can be written to, and holds Unicode.

    Raises:
        StartupError: It is a read-only replica, or the database has another encoding than UTF-8.
        sqlalchemy.exc.DBAPIError: It does not answer, or does not let us in.
    """
    with engine.connect() as connection:
        read_only = connection.execute(text("SHOW transaction_read_only")).scalar_one()
        encoding = connection.execute(text("SHOW server_encoding")).scalar_one()
    if read_only == "on":
        raise StartupError("The PostgreSQL server takes no writes (a replica?): store.url must name the primary")
    if encoding != "UTF8":
        raise StartupError(f"The PostgreSQL database has the encoding {encoding}: make one with ENCODING 'UTF8'")


def lock_migration(connection: Connection) -> None:
    """Waits until no other process migrates this database; the lock goes with the transaction."""
    connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": _MIGRATION_LOCK})
