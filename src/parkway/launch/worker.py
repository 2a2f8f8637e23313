"""The worker process: what has to be done now and then, away from the requests."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from sqlalchemy import Connection

from parkway.aggregate.responses import prune_responses
from parkway.core.tasks import Tasks
from parkway.feedback.retention import prune, prune_spans
from parkway.launch.keeping import Keeping
from parkway.launch.reload import INTERVAL_S, Outcome, Reload, Source, Watcher
from parkway.launch.settings import Settings
from parkway.store.home import Home
from parkway.store.sql import Database

log = logging.getLogger(__name__)

_INTERVAL_S = 3600.0
_ROWS_A_ROUND = 1000
_DAY_MS = 86_400_000


def run(settings: Settings, home: Home, source: Path | None = None) -> None:
    """Works until SIGTERM or SIGINT.

    Args:
        source: The configuration file whose changes are followed.

    Raises:
        StartupError: The store cannot be reached.
    """
    asyncio.run(_work(settings, home, source))


async def _work(settings: Settings, home: Home, source: Path | None) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    database = Database.open(settings.store.url or home.database_url, settings.store)
    try:
        async with Tasks("worker") as tasks:
            keeping = Keeping(database, settings.audit, home)
            reload = Reload(settings)
            reload.register(lambda new: keeping.prepare(new.audit), "audit")
            # What else is followed is read anew in each round.
            reload.register(lambda _: lambda: None, "feedback", "responses", "traces")

            def forgets(section: str, prune: Prune) -> Callable[[], Awaitable[int]]:
                return lambda: forget(database, getattr(reload.settings, section).retention_days, prune)

            tasks.every(_INTERVAL_S, forgets("feedback", prune), name="forget")
            tasks.every(_INTERVAL_S, forgets("responses", prune_responses), name="forget-responses")
            tasks.every(_INTERVAL_S, forgets("traces", prune_spans), name="forget-spans")
            tasks.every(_INTERVAL_S, keeping.retire, name="audit")
            tasks.every(lambda: reload.settings.audit.anchor_interval_s, keeping.anchor, name="anchor")
            if source is not None:
                watcher = Watcher(reload, Source(source), _tell)
                tasks.every(INTERVAL_S, watcher.look, name="configuration")
            tasks.every(_INTERVAL_S, database.maintain, name="maintain")
            await stop.wait()
    finally:
        database.close()


def _tell(outcome: Outcome) -> None:
    """Says that a change could not be taken; the gateway's log tells the rest."""
    if outcome.error is not None:
        log.error("the configuration cannot be used, so what was in force stays in force:\n%s", outcome.error)


Prune = Callable[[Connection, int, int], int]
"""Removes at most so many rows from before a time in milliseconds; returns how many it removed."""


async def forget(database: Database, retention_days: int, prune: Prune = prune) -> int:
    """Removes what is older than `retention_days`: by default requests and feedback. Returns how many rows went."""
    older_than_ms = time.time_ns() // 1_000_000 - retention_days * _DAY_MS
    removed = 0
    while True:
        # Short transactions, so that the writer of the request log gets its turn in between.
        count = await database.run(lambda connection: prune(connection, older_than_ms, _ROWS_A_ROUND))
        removed += count
        if count < _ROWS_A_ROUND:
            break
    if removed:
        log.info("removed %d rows that were older than %d days", removed, retention_days)
    return removed
