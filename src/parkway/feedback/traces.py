"""Traces: which requests are kept with all their spans, and how these get into the store and to a collector."""

from __future__ import annotations

import itertools
import logging
import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, field_validator
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from parkway.core.configuration import Section
from parkway.core.tasks import Tasks
from parkway.core.trace import Trace, parse_traceparent, parse_tracestate
from parkway.feedback.span import SpanRecord
from parkway.store import schema
from parkway.store.rows import insert_rows
from parkway.store.sql import Database
from parkway.store.writer import Writer

log = logging.getLogger(__name__)

_BATCH_SPANS = 1000
_NOTICE_INTERVAL_S = 60.0


class TracesConfig(Section):
    """Which requests leave a trace, and where it goes.

    Attributes:
        sample_share: The share of requests that is kept, however they end; the caller's own `traceparent` decides
            instead where it sends one.
        slow_s: A request that takes at least this long is kept, sampled or not. So is one that fails.
        max_per_s: The most requests a second that are kept by sampling, and as many again that failed or were slow.
            0 keeps nothing.
        content: Whether what was asked and answered is recorded too.
        queue_size: Spans that may wait for the store, and as many for the collector; others are shed and counted.
        flush_interval_s: The longest that a span waits while the store is well.
        retention_days: Older spans are removed.
        otlp_endpoint: A collector that takes OTLP over HTTP; without a path in it, `/v1/traces` is added.
        otlp_headers_env: The environment variable with headers for it: `name=value,name=value`.
        otlp_timeout_s: The longest that sending a batch may take, all attempts together.
    """

    sample_share: float = Field(default=1.0, ge=0, le=1)
    slow_s: float = Field(default=10.0, ge=0, le=86_400)
    max_per_s: int = Field(default=50, ge=0, le=100_000)
    content: bool = False
    queue_size: int = Field(default=10_000, ge=1, le=1_000_000)
    flush_interval_s: float = Field(default=0.5, gt=0, le=60)
    retention_days: int = Field(default=7, ge=1, le=36_500)
    otlp_endpoint: str | None = None
    otlp_headers_env: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] | None = None
    otlp_timeout_s: float = Field(default=10.0, gt=0, le=300)

    @field_validator("otlp_endpoint")
    @classmethod
    def _address(cls, url: str | None) -> str | None:
        if url is None:
            return None
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
            raise ValueError("not an http:// or https:// URL without a user; a key belongs into `otlp_headers_env`")
        return url.rstrip("/") + ("" if parts.path.strip("/") else "/v1/traces")


class Rate:
    """At most `limit` in each second of the clock."""

    __slots__ = ("_left", "_limit", "_second")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._left = limit
        self._second = 0

    def take(self, now: float) -> bool:
        second = int(now)
        if second != self._second:
            self._second, self._left = second, self._limit
        if self._left <= 0:
            return False
        self._left -= 1
        return True


class TraceLog:
    """The traces of a gateway. Used from the event loop alone.

    Whether a request is kept is decided when it begins (its share, or its caller's flag) and again when it has ended
    (errors, slow ones), so that until then every request notes its spans, and most throw them away.

    Args:
        export: Takes what is kept, for a collector; must not wait.
    """

    def __init__(
        self,
        database: Database,
        config: TracesConfig,
        export: Callable[[Sequence[SpanRecord]], None] | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._database = database
        self._config = config
        self._export = export
        self._chance = chance
        self._sampled = Rate(config.max_per_s)
        self._noteworthy = Rate(config.max_per_s)
        self._pending: deque[SpanRecord] = deque()
        self._writer = Writer("traces", "spans", config.flush_interval_s, self._pending.__len__, self._write_batch)
        self._next_notice = float("-inf")
        self.content = config.content
        """Whether spans may hold what was asked and answered."""
        self.shed = 0
        """Spans that were given up because the store was too slow or away."""

    def replace(self, config: TracesConfig) -> None:
        """Another configuration from now on; what is kept already stays, and what has begun is sampled already."""
        if config.max_per_s != self._config.max_per_s:
            self._sampled, self._noteworthy = Rate(config.max_per_s), Rate(config.max_per_s)
        self._config = config
        self._writer.interval_s = config.flush_interval_s
        self.content = config.content

    def begin(self, traceparent: str | None = None, tracestate: str | None = None) -> Trace:
        """The trace of a request that begins now, as a part of its caller's if that sent a valid context."""
        parent = parse_traceparent(traceparent) if traceparent is not None else None
        if parent is None:
            share = self._config.sample_share
            recorded = (share >= 1 or self._chance() < share) and self._sampled.take(time.monotonic())
            return Trace(sampled=recorded, recorded=recorded)
        trace_id, parent_id, sampled = parent
        return Trace(
            trace_id,
            parent_id,
            parse_tracestate(tracestate),
            sampled=sampled,  # decided by whoever began the trace: handed on, though we may have no room for it
            recorded=sampled and self._sampled.take(time.monotonic()),
        )

    def keeps(self, trace: Trace, *, failed: bool, took_s: float) -> bool:
        """Whether a request that has ended is kept; then `keep` takes its spans."""
        if trace.recorded:
            return True
        return (failed or took_s >= self._config.slow_s) and self._noteworthy.take(time.monotonic())

    def keep(self, spans: Sequence[SpanRecord]) -> None:
        """Queues the spans of one request. Never waits and never raises; a full queue sheds them and counts."""
        if self._export is not None:
            self._export(spans)
        if len(self._pending) + len(spans) > self._config.queue_size:
            self._shed(len(spans), "the queue is full; the store is too slow or away (traces.queue_size sets its size)")
            return
        self._pending.extend(spans)

    def start(self, tasks: Tasks) -> None:
        """Starts the writer."""
        self._writer.start(tasks)

    async def close(self, timeout_s: float = 5.0) -> None:
        """Writes what is left, for at most `timeout_s`."""
        if not await self._writer.close(timeout_s):
            self._shed(len(self._pending), "the store was away while Parkway stopped")
            self._pending.clear()

    async def _write_batch(self) -> int:
        batch = list(itertools.islice(self._pending, _BATCH_SPANS))
        try:
            await self._database.run(lambda connection: _write(connection, batch))
        except SQLAlchemyError as error:
            log.warning("traces: a batch was refused (%s)", error)
            self._shed(len(batch), "the store refused them")
        for _ in batch:
            self._pending.popleft()
        return len(batch)

    def _shed(self, count: int, why: str) -> None:
        self.shed += count
        now = time.monotonic()
        if now >= self._next_notice:
            self._next_notice = now + _NOTICE_INTERVAL_S
            log.warning("traces: %d spans shed so far: %s", self.shed, why)


def _write(connection: Connection, batch: Sequence[SpanRecord]) -> None:
    insert_rows(connection, schema.spans, (span.to_row() for span in batch))
