"""The worker process: what has to be done now and then, away from the requests."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Callable

from sqlalchemy import Connection

from parkway.aggregate.responses import prune_responses
from parkway.core.tasks import Tasks
from parkway.feedback.retention import prune, prune_spans
from parkway.launch.keeping import Keeping
from parkway.launch.settings import Settings
from parkway.store.home import Home
from parkway.store.sql import Database

log = logging.getLogger(__name__)

_INTERVAL_S = 3600.0
_ROWS_A_ROUND = 1000
_DAY_MS = 86_400_000


def run(settings: Settings, home: Home) -> None:
    """Works until SIGTERM or SIGINT.

    Raises:
        StartupError: The store cannot be reached.
    """
    asyncio.run(_work(settings, home))


async def _work(settings: Settings, home: Home) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    database = Database.open(settings.store.url or home.database_url, settings.store)
    try:
        async with Tasks("worker") as tasks:
            keeping = Keeping(database, settings.audit, home)
            tasks.every(_INTERVAL_S, lambda: forget(database, settings.feedback.retention_days), name="forget")
            kept_days = settings.responses.retention_days
            tasks.every(_INTERVAL_S, lambda: forget(database, kept_days, prune_responses), name="forget-responses")
            spans_days = settings.traces.retention_days
            tasks.every(_INTERVAL_S, lambda: forget(database, spans_days, prune_spans), name="forget-spans")
            tasks.every(_INTERVAL_S, keeping.retire, name="audit")
            tasks.every(settings.audit.anchor_interval_s, keeping.anchor, name="anchor")
            tasks.every(_INTERVAL_S, database.maintain, name="maintain")
            await stop.wait()
    finally:
        database.close()


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
