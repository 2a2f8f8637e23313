"""The routes that models are asked through: chat, completions, embeddings, rerank, and chat in other protocols."""

from __future__ import annotations

import math
import re
import time

from starlette.types import Receive, Scope, Send

from parkway.aggregate.dialects.dialect import Dialect
from parkway.core.errors import InvalidRequest
from parkway.core.trace import CURRENT
from parkway.gateway.body import source_of
from parkway.gateway.client import AsgiClient
from parkway.gateway.config import InForce
from parkway.gateway.dialect_client import DialectClient
from parkway.pipeline.answer import answer
from parkway.pipeline.exchange import Caching, Exchange, Surface
from parkway.pipeline.parts import Current


class ModelRoute:
    """An ASGI app that takes one request through the pipeline.

    Args:
        dialect: How the client's protocol becomes chat; by default as the surface has it.
    """

    def __init__(
        self, surface: Surface, current: Current, config: InForce, dialect: type[Dialect] | None = None
    ) -> None:
        self._surface = surface
        self._current = current
        self._config = config
        self._dialect = dialect or surface.dialect

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with AsgiClient(scope, receive, send, self._config.gateway.body_timeout_s) as client:
            parts = self._current.parts
            request_id: str = scope["state"]["request_id"]
            parent = client.joined_header(b"traceparent")
            state = client.joined_header(b"tracestate") if parent is not None else None
            trace = parts.traces.begin(parent, state)
            CURRENT.set((request_id, trace.trace_id))
            dialect = self._dialect(parts.bounds.max_answer_bytes) if self._dialect is not None else None
            now = time.monotonic()
            exchange = Exchange(
                request_id=request_id,
                surface=self._surface,
                client=client if dialect is None else DialectClient(client, dialect),
                authorization=client.header(b"authorization"),
                trace=trace,
                source=source_of(scope),
                started=now,
                deadline=now + self._config.gateway.timeout_s,
                dialect=dialect,
            )
            if client.sent_any(_OPTIONAL):
                self._heed(exchange, client, caches=parts.response_cache is not None)
            with parts.metrics.in_flight:
                await answer(exchange, parts)

    def _heed(self, exchange: Exchange, client: AsgiClient, *, caches: bool) -> None:
        """Takes over what the headers say that most clients do not send.

        Raises:
            InvalidRequest: One of them says nothing that is understood.
        """
        exchange.api_key = client.header(b"x-api-key")
        exchange.priority = client.header(b"x-parkway-priority")
        exchange.agent = _name(client, b"x-parkway-agent")
        exchange.task = _name(client, b"x-parkway-task")
        exchange.deadline = exchange.started + self._timeout_s(client)
        if caches:
            exchange.caching = _caching(client)

    def _timeout_s(self, client: AsgiClient) -> float:
        """The client's own time-out where it sends one, never over the configured one."""
        asked = client.header(b"x-parkway-timeout-s")
        if asked is None:
            return self._config.gateway.timeout_s
        try:
            seconds = float(asked)
        except ValueError:
            seconds = math.nan
        if not 0 < seconds < math.inf:
            raise InvalidRequest(f"header `x-parkway-timeout-s`: {asked[:40]!r} is not a positive number of seconds")
        return min(seconds, self._config.gateway.timeout_s)


_OPTIONAL = frozenset({
    b"x-api-key", b"x-parkway-priority", b"x-parkway-agent", b"x-parkway-task", b"x-parkway-timeout-s",
    b"x-parkway-cache", b"cache-control",
})  # fmt: skip

_NAME = re.compile(r"[A-Za-z0-9._:/@-]{1,64}")


def _name(client: AsgiClient, header: bytes) -> str | None:
    """The agent or the task that a request says it belongs to."""
    name = client.header(header)
    if name is not None and _NAME.fullmatch(name) is None:
        raise InvalidRequest(
            f"{header.decode()}: {name[:80]!r} is not a name; one has 1 to 64 letters, digits or . _ : / @ -"
        )
    return name


def _caching(client: AsgiClient) -> Caching:
    """Whether the client takes an answer that was given before."""
    asked = client.header(b"x-parkway-cache")
    if asked is not None:
        match asked.strip().lower():
            case "on" | "refresh" | "off" as caching:
                return caching
        raise InvalidRequest(f"header `x-parkway-cache`: {asked[:40]!r} is none of on, refresh, off")
    control = client.header(b"cache-control")
    if control is None:
        return "on"
    directives = {directive.strip().lower() for directive in control.split(",")}
    if "no-store" in directives:
        return "off"
    return "refresh" if directives & {"no-cache", "max-age=0"} else "on"
