"""Own routes leave a span each, as HTTP servers do: OpenTelemetry's conventions for HTTP.

Source: https://opentelemetry.io/docs/specs/semconv/http/http-spans/.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from parkway.core.errors import InternalError, ParkwayError
from parkway.core.trace import CURRENT, Trace
from parkway.feedback.record import CANCELLED, OK
from parkway.feedback.span import records_of
from parkway.gateway.body import joined_header
from parkway.pipeline.parts import Current

_MAX_PATH_CHARS = 200

Handler = Callable[[Request], Awaitable[Response]]


def traced(current: Current, route: str, handler: Handler) -> Handler:
    """`handler` with a span for each request of a known caller, sampled as those to models are.

    Strangers leave none, as they leave none there: they would fill the disk.

    Args:
        route: The path with its variables, which is bounded where paths are not.
    """

    async def handle(request: Request) -> Response:
        parent = joined_header(request.scope, b"traceparent")
        state = joined_header(request.scope, b"tracestate") if parent is not None else None
        trace = current.parts.traces.begin(parent, state)
        request.scope["state"]["trace"] = trace  # for handlers with something to add
        CURRENT.set((request.scope["state"]["request_id"], trace.trace_id))
        status, outcome = InternalError.status, InternalError.code
        try:
            response = await handler(request)
            status, outcome = response.status_code, OK
            return response
        except ParkwayError as error:
            status, outcome = error.status, error.code
            raise
        except ClientDisconnect:
            status, outcome = 499, CANCELLED
            raise
        finally:
            _end(current, route, request, trace, status, outcome)

    return handle


def _end(current: Current, route: str, request: Request, trace: Trace, status: int, outcome: str) -> None:
    key_id: str | None = request.scope["state"].get("key_id")
    root, traces = trace.root, current.parts.traces
    root.ended = time.monotonic()
    failed = status >= 500  # what a client did wrong is no error of the server
    if key_id is None or not traces.keeps(trace, failed=failed, took_s=root.ended - root.started):
        return
    root.name = f"{request.method} {route}"
    root.attributes |= {
        "http.request.method": request.method,
        "http.route": route,
        "url.path": request.scope["path"][:_MAX_PATH_CHARS],
        "http.response.status_code": status,
        "parkway.outcome": outcome,
    }
    if failed:
        root.error = root.attributes["error.type"] = outcome
    traces.keep(records_of(trace, request.scope["state"]["request_id"], key_id))
