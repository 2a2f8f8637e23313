"""The collections of an installation, in SQL: how each is configured, and which are on their way out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import Connection, delete, insert, select, update

from parkway.retrieval.config import CollectionConfig
from parkway.store.revisions import bump
from parkway.store.schema import knowledge_collections as collections
from parkway.store.schema import knowledge_documents as documents
from parkway.store.sql import Database

TOPIC = "knowledge"
"""Of the revisions: raised when collections come, go or change; documents do not raise it."""

Origin = Literal["config", "api"]


@dataclass(frozen=True, slots=True)
class KnownCollection:
    """A collection, and whether it is on its way out. One that was removed and made again has another `created_ms`."""

    name: str
    config: CollectionConfig
    origin: Origin
    removing: bool
    created_ms: int


class Collections:
    """Blocking; for any number of threads and processes.

    Raises, all of it:
        StoreUnavailable: The database does not answer; nothing was changed.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> dict[str, KnownCollection]:
        """By name, in the order of the names."""
        with self._database.read() as connection:
            rows = connection.execute(select(collections).order_by(collections.c.collection)).all()
        return {
            row.collection: KnownCollection(
                row.collection,
                CollectionConfig.model_validate_json(row.settings),
                row.origin,
                row.removing,
                row.created_ms,
            )
            for row in rows
        }

    def save(self, configs: Mapping[str, CollectionConfig], origin: Origin, now_ms: int) -> None:
        """Adds collections, or changes their settings, all or none of them.

        One that is being removed comes back with what is left of it.
        """
        with self._database.begin() as connection:
            changed = [_save(connection, name, config, origin, now_ms) for name, config in configs.items()]
            if any(changed):
                bump(connection, TOPIC)

    def begin_removal(self, name: str, now_ms: int) -> bool:
        """Says that a collection shall be gone, with all of its documents; whether there is one."""
        with self._database.begin() as connection:
            changed = update(collections).where(collections.c.collection == name)
            found = connection.execute(changed.values(removing=True, updated_ms=now_ms)).rowcount
            bump(connection, TOPIC)
        return found > 0

    def forget(self, name: str) -> None:
        """Deletes what the database has of a collection, once nothing else has anything of it."""
        with self._database.begin() as connection:
            connection.execute(delete(documents).where(documents.c.collection == name))
            connection.execute(delete(collections).where(collections.c.collection == name))
            bump(connection, TOPIC)


def _save(connection: Connection, name: str, config: CollectionConfig, origin: Origin, now_ms: int) -> bool:
    """Whether anything is different now."""
    values = {"origin": origin, "settings": config.model_dump_json(exclude_defaults=True), "removing": False}
    row = connection.execute(
        select(collections).where(collections.c.collection == name).with_for_update()
    ).one_or_none()
    if row is None:
        times = {"created_ms": now_ms, "updated_ms": now_ms}
        connection.execute(insert(collections).values(collection=name, **values, **times))
        return True
    if all(getattr(row, key) == value for key, value in values.items()):
        return False
    changed = update(collections).where(collections.c.collection == name)
    connection.execute(changed.values(**values, updated_ms=now_ms))
    return True
