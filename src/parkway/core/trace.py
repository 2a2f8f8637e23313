"""A trace: what a request did when, as cheap to note as can be; and its context as it goes from process to process.

Source: W3C Trace Context, level 1, https://www.w3.org/TR/trace-context/.
"""

from __future__ import annotations

import random
import re
import time
from contextvars import ContextVar
from typing import Any, Literal

SpanKind = Literal["server", "client", "internal"]

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_MEMBER = re.compile(
    r"(?:[a-z][a-z0-9_\-*/]{0,255}|[a-z0-9][a-z0-9_\-*/]{0,240}@[a-z][a-z0-9_\-*/]{0,13})"
    r"=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
)
_MAX_MEMBERS = 32
_MAX_STATE_CHARS = 8192
_NO_TRACE = "0" * 32
_NO_SPAN = "0" * 16

# Ids have to be unique, not secret; seeded from the system for each process. One of zeros alone, which the standard
# forbids, would come once in 10^19.
_bytes = random.Random().randbytes  # noqa: S311 - as said

CURRENT: ContextVar[tuple[str, str] | None] = ContextVar("parkway_request", default=None)
"""Request id and trace id of the request that runs, for the lines of the log; no trace id where there is no trace."""


class Span:
    """One thing that took time. Times are in seconds of `time.monotonic`."""

    __slots__ = ("attributes", "ended", "error", "events", "kind", "name", "parent_id", "span_id", "started")

    def __init__(self, name: str, kind: SpanKind, parent_id: str | None, started: float) -> None:
        self.name = name
        self.kind: SpanKind = kind
        self.span_id = _bytes(8).hex()
        self.parent_id = parent_id
        self.started = started
        self.ended: float | None = None
        self.error: str | None = None
        self.attributes: dict[str, Any] = {}
        self.events: list[tuple[str, float]] = []

    def end(self, error: str | None = None) -> None:
        """Ends it, once; `error` is a short name of what went wrong, such as a code or a class."""
        if self.ended is None:
            self.ended = time.monotonic()
            self.error = error


class Trace:
    """The spans of one request in this process, and the context that came with it.

    Attributes:
        root: The request itself.
        sampled: The flag that goes on to whoever is called.
        recorded: Whether it will be kept however it ends.
    """

    __slots__ = ("recorded", "root", "sampled", "spans", "trace_id", "tracestate")

    def __init__(
        self,
        trace_id: str | None = None,
        parent_id: str | None = None,
        tracestate: str | None = None,
        *,
        sampled: bool = False,
        recorded: bool = False,
    ) -> None:
        self.trace_id = trace_id or _bytes(16).hex()
        self.tracestate = tracestate
        self.sampled = sampled
        self.recorded = recorded
        self.root = Span("request", "server", parent_id, time.monotonic())
        self.spans: list[Span] = []

    def begin(self, name: str, kind: SpanKind = "internal") -> Span:
        """A span below the request that begins now; whoever began it ends it."""
        span = Span(name, kind, self.root.span_id, time.monotonic())
        self.spans.append(span)
        return span

    def add(self, name: str, started: float, ended: float) -> Span:
        """A span below the request that is over already."""
        span = Span(name, "internal", self.root.span_id, started)
        span.ended = ended
        self.spans.append(span)
        return span

    def traceparent(self, span: Span) -> str:
        """The header for a call that `span` stands for."""
        return f"00-{self.trace_id}-{span.span_id}-{'01' if self.sampled else '00'}"


def parse_traceparent(value: str | None) -> tuple[str, str, bool] | None:
    """Trace id, span id and sampled flag of a header; None where it is not valid, and then a new trace begins.

    A version that is not known yet is read as far as the first four fields, as the standard asks.
    """
    match = _TRACEPARENT.fullmatch(value) if value is not None and len(value) <= _MAX_STATE_CHARS else None
    if match is None:
        return None
    version, trace_id, span_id, flags, more = match.groups()
    if version == "ff" or (version == "00" and more) or trace_id == _NO_TRACE or span_id == _NO_SPAN:
        return None
    return trace_id, span_id, bool(int(flags, 16) & 1)


def parse_tracestate(value: str | None) -> str | None:
    """The header as it may be handed on; None where it is not valid, for then it is left out as a whole."""
    if value is None or len(value) > _MAX_STATE_CHARS:
        return None
    members = [member.strip(" \t") for member in value.split(",")]
    given = [member for member in members if member]
    keys = {member.partition("=")[0] for member in given}
    if not given or len(members) > _MAX_MEMBERS or len(keys) < len(given):
        return None
    return ",".join(given) if all(map(_MEMBER.fullmatch, given)) else None
