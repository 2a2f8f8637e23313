"""Word of what changed in the store: a number for each topic, raised by whoever writes, watched by whoever reads.

Keys and endpoints are read from memory on the request path; this is how that memory stays true across processes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable

from sqlalchemy import Connection, select, text

from parkway.core.errors import StoreUnavailable
from parkway.store.schema import revisions
from parkway.store.sql import Database

log = logging.getLogger(__name__)

# The same words on both databases, and one statement: two writers of a new topic cannot collide.
_BUMP = text(
    "INSERT INTO revisions (topic, revision) VALUES (:topic, 1) "
    "ON CONFLICT (topic) DO UPDATE SET revision = revisions.revision + 1"
)


def bump(connection: Connection, topic: str) -> None:
    """Says that `topic` has changed. Belongs into the transaction of the change: both are seen, or neither."""
    connection.execute(_BUMP, {"topic": topic})


class Watch:
    """Sees within `interval_s` that one of `topics` has changed, in whatever process.

    A reader loads when told to, and not before: `changed` answers at first with every topic, so that no change
    falls between a load and the watch. While the store is away the watch goes on trying; what the reader holds stays
    the last that was known.
    """

    def __init__(self, database: Database, topics: Iterable[str], *, interval_s: float = 0.25) -> None:
        self._database = database
        self._seen: dict[str, int | None] = dict.fromkeys(topics)
        self._query = select(revisions.c.topic, revisions.c.revision).where(revisions.c.topic.in_(list(self._seen)))
        self._interval_s = interval_s
        self._away = False

    async def changed(self) -> frozenset[str]:
        """Waits, without end, until at least one topic has changed since the last call; the first call never waits."""
        while True:
            if moved := await self._look():
                return moved
            await asyncio.sleep(self._interval_s)

    async def __aiter__(self) -> AsyncIterator[str]:
        while True:
            for topic in sorted(await self.changed()):
                yield topic

    async def _look(self) -> frozenset[str]:
        try:
            found = await self._database.run(self._read, write=False, timeout_s=5.0)
        except StoreUnavailable as error:
            if not self._away:
                log.warning("%s Changes of %s go unseen until it is back.", error.message, ", ".join(self._seen))
            self._away = True
            return frozenset()
        if self._away:
            log.warning("the store is back")
            self._away = False
        # Unequal, not greater: a restored copy of the database goes back.
        moved = frozenset(topic for topic, revision in found.items() if self._seen[topic] != revision)
        self._seen.update(found)
        return moved

    def _read(self, connection: Connection) -> dict[str, int]:
        known = dict(connection.execute(self._query).all())
        return {topic: known.get(topic, 0) for topic in self._seen}
