"""A span as it is kept and exported, when it is over."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import msgspec

from parkway.core.trace import Span, SpanKind, Trace

EVENTS = "parkway.events"
"""Where the events of a span stand among its attributes in the store: pairs of a name and nanoseconds since 1970."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpanRecord:
    """One span. Times are in nanoseconds since 1970.

    Attributes:
        error: What went wrong, as a short name; None if nothing did.
        attributes: By the semantic conventions of OpenTelemetry; strings, numbers, booleans and lists of them.
        events: What happened in its course, and when.
    """

    trace_id: str
    span_id: str
    parent_id: str | None
    name: str
    kind: SpanKind
    started_ns: int
    ended_ns: int
    error: str | None
    request_id: str
    key_id: str
    tracestate: str | None = None
    attributes: dict[str, Any] = field(default_factory=dict)
    events: list[tuple[str, int]] = field(default_factory=list)

    def to_row(self) -> tuple[object, ...]:
        """The columns of the table `spans`, in order."""
        attributes = {**self.attributes, EVENTS: self.events} if self.events else self.attributes
        return (
            self.trace_id, self.span_id, self.parent_id, self.name, self.kind, self.started_ns, self.ended_ns,
            "ok" if self.error is None else "error", self.request_id, self.key_id, _text(attributes),
        )  # fmt: skip


def records_of(trace: Trace, request_id: str, key_id: str) -> list[SpanRecord]:
    """The spans of a request that is over, the request first. What nobody ended ends with it."""
    # The monotonic clock has no date. Its distance from the one that has is taken now, so that a correction of the
    # clock in the life of the process does not stay with it.
    epoch_ns = time.time_ns() - round(time.monotonic() * 1e9)
    over = trace.root.ended or time.monotonic()

    def record(span: Span) -> SpanRecord:
        return SpanRecord(
            trace_id=trace.trace_id,
            span_id=span.span_id,
            parent_id=span.parent_id,
            name=span.name,
            kind=span.kind,
            started_ns=epoch_ns + round(span.started * 1e9),
            ended_ns=epoch_ns + round((over if span.ended is None else span.ended) * 1e9),
            error=span.error,
            request_id=request_id,
            key_id=key_id,
            tracestate=trace.tracestate,
            attributes=span.attributes,
            events=[(name, epoch_ns + round(at * 1e9)) for name, at in span.events],
        )

    return [record(trace.root), *map(record, trace.spans)]


def _text(attributes: dict[str, Any]) -> str:
    # PostgreSQL takes no NUL in a text, and JSON escapes it.
    return msgspec.json.encode(attributes).decode()
