"""Traces as they are read again: a list of requests, and the tree of one of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import msgspec
from sqlalchemy import Connection, Row, and_, or_, select

from parkway.core.errors import NotFound
from parkway.core.trace import SpanKind
from parkway.feedback.span import EVENTS
from parkway.store import schema

MAX_SPANS = 10_000
"""The most spans of one trace that are read: whoever sends the `traceparent` decides how many belong together."""

_spans = schema.spans.c
_NS_A_MS = 1_000_000


class TraceSummary(msgspec.Struct, kw_only=True):
    """One request that left a trace. Several requests of one caller may share a `trace_id`."""

    trace_id: str
    request_id: str
    name: str
    started_ms: float
    duration_ms: float
    status: Literal["ok", "error"]
    outcome: str
    model: str
    object: Literal["trace"] = "trace"


class TracePage(msgspec.Struct, kw_only=True):
    """Newest first; `last_id` goes into `after` for the next page."""

    data: list[TraceSummary]
    has_more: bool
    last_id: str | None
    object: Literal["list"] = "list"


class SpanEvent(msgspec.Struct, kw_only=True):
    name: str
    at_ms: float


class SpanView(msgspec.Struct, kw_only=True):
    """One span. Times are milliseconds since 1970, with fractions."""

    span_id: str
    parent_id: str | None
    name: str
    kind: SpanKind
    started_ms: float
    duration_ms: float
    status: Literal["ok", "error"]
    request_id: str
    attributes: dict[str, Any]
    events: list[SpanEvent]


class TraceView(msgspec.Struct, kw_only=True):
    """All spans of a trace that Parkway has, by when they began."""

    trace_id: str
    spans: list[SpanView]
    object: Literal["trace"] = "trace"


@dataclass(frozen=True, slots=True)
class TraceFilter:
    """Which requests a list has.

    Attributes:
        key_id: Of this key alone; None: of all.
        after: Older than this request.
        min_ms: That took at least so long.
    """

    key_id: str | None = None
    limit: int = 20
    after: str | None = None
    since_ms: int | None = None
    status: Literal["ok", "error"] | None = None
    min_ms: float | None = None


def list_traces(connection: Connection, wanted: TraceFilter) -> TracePage:
    """The newest requests that the filter lets through.

    Raises:
        NotFound: `after` names no request of the caller that left a trace.
    """
    query = select(schema.spans).where(_spans.kind == "server")
    if wanted.key_id is not None:
        query = query.where(_spans.key_id == wanted.key_id)
    if wanted.since_ms is not None:
        query = query.where(_spans.started_ns >= wanted.since_ms * _NS_A_MS)
    if wanted.status is not None:
        query = query.where(_spans.status == wanted.status)
    if wanted.min_ms is not None:
        query = query.where(_spans.ended_ns - _spans.started_ns >= round(wanted.min_ms * _NS_A_MS))
    if wanted.after is not None:
        last = _root(connection, wanted.after, wanted.key_id)
        earlier = and_(_spans.started_ns == last.started_ns, _spans.span_id < last.span_id)
        query = query.where(or_(_spans.started_ns < last.started_ns, earlier))
    query = query.order_by(_spans.started_ns.desc(), _spans.span_id.desc()).limit(wanted.limit + 1)
    rows = connection.execute(query).all()
    data = [_summary(row) for row in rows[: wanted.limit]]
    return TracePage(data=data, has_more=len(rows) > wanted.limit, last_id=data[-1].request_id if data else None)


def read_trace(connection: Connection, trace_or_request: str, key_id: str | None) -> TraceView:
    """The trace with this id, or that of the request with it.

    Args:
        key_id: Only the spans of this key; None: all.

    Raises:
        NotFound: There is none, or it is another key's, or it was not kept.
    """
    trace_id = trace_or_request
    if not trace_id.isprintable():  # PostgreSQL takes no NUL, not even to look for it
        raise _not_found(trace_id)
    if trace_or_request.startswith("req_"):
        trace_id = _root(connection, trace_or_request, key_id).trace_id
    query = select(schema.spans).where(_spans.trace_id == trace_id)
    if key_id is not None:
        query = query.where(_spans.key_id == key_id)
    rows = connection.execute(query.order_by(_spans.started_ns, _spans.span_id).limit(MAX_SPANS)).all()
    if not rows:
        raise _not_found(trace_or_request)
    return TraceView(trace_id=trace_id, spans=[_view(row) for row in rows])


def _root(connection: Connection, request_id: str, key_id: str | None) -> Row[Any]:
    if not request_id.isprintable():
        raise _not_found(request_id)
    query = select(schema.spans).where(_spans.request_id == request_id, _spans.kind == "server")
    if key_id is not None:
        query = query.where(_spans.key_id == key_id)
    row = connection.execute(query.limit(1)).one_or_none()
    if row is None:
        raise _not_found(request_id)
    return row


def _not_found(name: str) -> NotFound:
    # The same words whether it is unknown or another key's: who asks learns nothing about other keys.
    return NotFound(
        f"there is no trace {name[:80]!r} of this key; send the `x-request-id` of an answer, or a trace id. Traces are "
        "kept as `traces` in the configuration says"
    )


def _summary(row: Row[Any]) -> TraceSummary:
    attributes = msgspec.json.decode(row.attributes)
    return TraceSummary(
        trace_id=row.trace_id,
        request_id=row.request_id,
        name=row.name,
        started_ms=row.started_ns / _NS_A_MS,
        duration_ms=(row.ended_ns - row.started_ns) / _NS_A_MS,
        status=row.status,
        outcome=str(attributes.get("parkway.outcome", "")),
        model=str(attributes.get("gen_ai.request.model", "")),
    )


def _view(row: Row[Any]) -> SpanView:
    attributes: dict[str, Any] = msgspec.json.decode(row.attributes)
    events = attributes.pop(EVENTS, [])
    return SpanView(
        span_id=row.span_id,
        parent_id=row.parent_id,
        name=row.name,
        kind=row.kind,
        started_ms=row.started_ns / _NS_A_MS,
        duration_ms=(row.ended_ns - row.started_ns) / _NS_A_MS,
        status=row.status,
        request_id=row.request_id,
        attributes=attributes,
        events=[SpanEvent(name=name, at_ms=at_ns / _NS_A_MS) for name, at_ns in events],
    )
