"""The store's configuration; light, because every command reads it."""

from pydantic import Field

from parkway.core.configuration import Section


class StoreConfig(Section):
    """Where state is kept, and how long to wait for it."""

    url: str | None = None  # None: an SQLite file in the home
    threads: int = Field(default=4, ge=1, le=64)
    waiting: int = Field(default=256, ge=1)  # jobs that may wait for a thread
    connect_timeout_s: float = Field(default=5.0, ge=1)
    lock_timeout_s: float = Field(default=5.0, gt=0)  # SQLite: the wait for another writer
    statement_timeout_s: float = Field(default=30.0, gt=0)  # PostgreSQL
