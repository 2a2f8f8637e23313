"""The outermost layer: every request gets an id, every failure an answer."""

from __future__ import annotations

import logging
from collections.abc import Callable

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from parkway.aggregate.dialects.messages import refusal
from parkway.core.errors import Draining, InternalError, MethodNotAllowed, NotFound, Overloaded, ParkwayError
from parkway.core.ids import new_id
from parkway.core.trace import CURRENT
from parkway.core.wire import encode
from parkway.gateway.body import source_of
from parkway.gateway.config import InForce
from parkway.gateway.decision import Asked, asked_for

log = logging.getLogger(__name__)

_ANTHROPIC = "/v1/messages"
"""Under it every error is told as Anthropic's clients expect it, and the request id has their header too."""


class Door:
    """Pure ASGI middleware (Starlette's BaseHTTPMiddleware would hide that a client has left).

    Args:
        config: How many requests there may be at one moment; one more is refused with 503.
        draining: True once the process is about to stop; new requests are then refused with 503.
        note: Told of every refusal here, and of those by the connection (`protocol.py`).
    """

    def __init__(
        self, app: ASGIApp, config: InForce, draining: Callable[[], bool], note: Callable[[ParkwayError, Asked], None]
    ) -> None:
        self._app = app
        self.config = config
        self.note = note
        self._draining = draining
        self._running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = new_id("req")
        anthropic = scope["path"].startswith(_ANTHROPIC)
        scope.setdefault("app", self)  # without it Starlette answers 404 and 405 itself, in plain text
        scope.setdefault("state", {})["request_id"] = request_id
        CURRENT.set((request_id, ""))
        told_id = request_id.encode()
        id_headers = [(b"x-request-id", told_id)]
        if anthropic:
            id_headers.append((b"request-id", told_id))
        started = False

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [*message.get("headers", ()), *id_headers]
            await send(message)

        self._running += 1
        try:
            if scope["path"].startswith("/v1/"):
                self._check_capacity(scope)
            await self._app(scope, receive, send_with_id)
        except ParkwayError as error:
            if error.status >= 500:
                log.warning("request %s: %s (cause: %r)", request_id, error.message, error.__cause__)
            if started:
                raise
            await _answer(error, request_id, send_with_id, anthropic=anthropic)
        except HTTPException as error:
            if started:
                raise
            await _answer(_of_routing(error, scope), request_id, send_with_id, anthropic=anthropic)
        except ClientDisconnect:
            pass  # nobody is there to be told
        except Exception:  # a defect of ours must still be an answer with a request id, and a line in the log
            log.exception("request %s failed", request_id)
            if started:
                raise
            await _answer(
                InternalError("internal error; the server's log has the details under this request id"),
                request_id,
                send_with_id,
                anthropic=anthropic,
            )
        finally:
            self._running -= 1

    def _check_capacity(self, scope: Scope) -> None:
        most = self.config.gateway.max_requests
        if self._draining():
            error = Draining("this gateway is stopping and takes no new requests; try again", retry_after_s=1)
        elif self._running > most:
            error = Overloaded(
                f"this gateway answers {most} requests at a time, set by gateway.max_requests; try again",
                retry_after_s=1,
            )
        else:
            return
        self.note(error, Asked(asked_for(scope), scope["state"]["request_id"], source_of(scope)))
        raise error


def _of_routing(error: HTTPException, scope: Scope) -> ParkwayError:
    path = scope["path"][:200]
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        return MethodNotAllowed(f"{scope['method']} {path} is not a route; this path takes {allowed}", allow=allowed)
    return NotFound(f"{scope['method']} {path} is not a route; /openapi.json lists all of them")


async def _answer(error: ParkwayError, request_id: str, send: Send, *, anthropic: bool) -> None:
    told = error.to_body(request_id)
    status, body = refusal(error.status, told["error"]) if anthropic else (error.status, encode(told))
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers += [(name.encode(), value.encode()) for name, value in error.headers().items()]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
