"""The request log: appended to in memory on the request path, written to the store in batches beside it."""

from __future__ import annotations

import itertools
import logging
import operator
import time
from collections.abc import Callable, Sequence

from sqlalchemy import Connection
from sqlalchemy.exc import DataError, IntegrityError

from parkway.core.tasks import Tasks
from parkway.feedback.config import FeedbackConfig
from parkway.feedback.record import RequestRecord, bounded
from parkway.store import schema
from parkway.store.rows import insert_rows
from parkway.store.sql import Database
from parkway.store.writer import Writer

log = logging.getLogger(__name__)

SHED_NOTICE_INTERVAL_S = 60.0

_row_of: Callable[[RequestRecord], tuple[object, ...]] = operator.attrgetter(*schema.requests.columns.keys())

# What a store says to a value that it will never take; sqlite3 raises OverflowError past 64 bits.
_REFUSALS = (DataError, IntegrityError, OverflowError)


class RequestLog:
    """Every request that ended, on its way to the table `requests`.

    Used from the event loop alone. Until the store has a record it stays in `_pending`, in the order of arrival, so
    that nothing is lost while the store is away and `find` sees what a client may already ask about.

    Args:
        clock: Seconds, monotonic; spaces the notices about shed records.
    """

    def __init__(self, database: Database, config: FeedbackConfig, clock: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._config = config
        self._clock = clock
        self._pending: dict[str, RequestRecord] = {}
        self._by_response: dict[tuple[str, str], RequestRecord] = {}
        self._writer = Writer(
            "request log", "records", config.flush_interval_s, self._pending.__len__, self._write_batch
        )
        self._next_notice = float("-inf")
        self.shed = 0
        """Records given up so far: the queue was full, the store refused them, or it was away until the end."""

    def replace(self, config: FeedbackConfig) -> None:
        """Another configuration from now on; what waits for the store still gets there."""
        self._config = config
        self._writer.interval_s = config.flush_interval_s

    def append(self, record: RequestRecord) -> None:
        """Queues `record`. Never waits and never raises: a full queue sheds it and counts it in `shed`."""
        if len(self._pending) >= self._config.queue_size:
            self._shed(1, "the queue is full; the store is too slow or away (feedback.queue_size sets its size)")
            return
        record = bounded(record)
        self._pending[record.request_id] = record
        if record.response_id is not None:
            self._by_response[record.key_id, record.response_id] = record

    def find(self, request_id: str, key_id: str) -> RequestRecord | None:
        """The record of `key_id`'s request, by our id or by the answer's, if the store does not have it yet."""
        record = self._pending.get(request_id)
        if record is not None and record.key_id == key_id:
            return record
        return self._by_response.get((key_id, request_id))

    def start(self, tasks: Tasks) -> None:
        """Starts the writer."""
        self._writer.start(tasks)

    async def close(self, timeout_s: float = 5.0) -> None:
        """Writes what is left, for at most `timeout_s`; what is left then is shed and counted."""
        if not await self._writer.close(timeout_s):
            self._shed(len(self._pending), "the store was away while Parkway stopped")
            self._pending.clear()
            self._by_response.clear()

    async def _write_batch(self) -> int:
        batch = list(itertools.islice(self._pending.values(), self._config.batch_size))
        refused = await self._database.run(lambda connection: write(connection, batch))
        self._forget(batch)
        if refused:
            self._shed(refused, "the store refused them")
        return len(batch)

    def _forget(self, batch: Sequence[RequestRecord]) -> None:
        for record in batch:
            del self._pending[record.request_id]
            if record.response_id is not None:
                # Endpoints may repeat their ids: the entry can belong to a later record by now.
                answer = (record.key_id, record.response_id)
                if self._by_response.get(answer) is record:
                    del self._by_response[answer]

    def _shed(self, count: int, why: str) -> None:
        self.shed += count
        now = self._clock()
        if now >= self._next_notice:
            self._next_notice = now + SHED_NOTICE_INTERVAL_S
            log.warning("request log: %d records shed so far: %s", self.shed, why)


def write(connection: Connection, batch: Sequence[RequestRecord]) -> int:
    """Writes `batch` in the caller's transaction; returns how many records the store refused for good.

    A record that is there already is left alone: an attempt that timed out may have been committed after all.
    """
    try:
        with connection.begin_nested():
            insert_rows(connection, schema.requests, map(_row_of, batch))
        return 0
    except _REFUSALS as error:
        log.warning("request log: a batch was refused (%s); its records are written one by one", error)
    refused = 0
    for record in batch:
        try:
            with connection.begin_nested():
                insert_rows(connection, schema.requests, [_row_of(record)])
        except _REFUSALS:
            refused += 1
    return refused
