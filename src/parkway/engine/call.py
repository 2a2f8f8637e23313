"""One HTTP request to the engine, and the ways to answer it."""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from starlette.types import Message, Receive, Scope, Send

from parkway.core import sse, wire
from parkway.core.errors import BodyTooLarge, InternalError, Overloaded, ParkwayError
from parkway.core.ids import new_id
from parkway.core.tasks import Tasks

log = logging.getLogger(__name__)

_SANE_ID = re.compile(rb"[A-Za-z0-9_.-]{1,128}")


class ClientGone(Exception):
    """The client closed the connection while it sent its request; nobody is there to be told."""


class Call:
    """A request whose body has arrived. Answer it by `json`, or by `event` as often as needed and `end`.

    Args:
        client: on whose account the request is, as the gateway says in `x-parkway-client`; for fairness alone.
    """

    def __init__(self, request_id: str, body: bytes, send: Send, client: str = "") -> None:
        self.request_id = request_id
        self.client = client
        self.body = body
        self._send = send
        self._started = False

    async def json(self, value: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        """The whole answer."""
        await self.encoded(wire.encode(value), status=status, headers=headers)

    async def encoded(self, body: bytes, *, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        """The whole answer, encoded already."""
        await self._start(status, {"content-type": "application/json", **(headers or {})}, len(body))
        await self._send({"type": "http.response.body", "body": body})

    async def events(self, values: list[Any]) -> None:
        """Some events of a streamed answer, in one write; none of them is no write."""
        if values:
            await self._write(b"".join(sse.event(wire.encode(value)) for value in values))

    async def end(self) -> None:
        """The end of a streamed answer."""
        await self._write(sse.DONE, more=False)

    async def fail(self, error: ParkwayError) -> None:
        """An answer that says why there is none; in the middle of a stream, its last event, without [DONE]."""
        body = error.to_body(self.request_id)
        if not self._started:
            await self.json(body, status=error.status, headers=error.headers())
        else:
            await self._write(sse.event(wire.encode(body)), more=False)

    async def _write(self, data: bytes, *, more: bool = True) -> None:
        if not self._started:
            await self._start(200, {"content-type": sse.CONTENT_TYPE, "cache-control": "no-store"})
        await self._send({"type": "http.response.body", "body": data, "more_body": more})

    async def _start(self, status: int, headers: Mapping[str, str], length: int | None = None) -> None:
        self._started = True
        pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
        pairs.append((b"x-request-id", self.request_id.encode()))
        if length is not None:
            pairs.append((b"content-length", str(length).encode()))
        await self._send({"type": "http.response.start", "status": status, "headers": pairs})


class Operation:
    """An ASGI app for one POST route: reads the body, answers, and stops as soon as the client has left.

    Args:
        answer: answers a call; a `ParkwayError` that it raises becomes the answer.
        max_body_bytes: a longer body is refused.
        calls_limit: calls over this many at once are refused.
    """

    def __init__(self, answer: Callable[[Call], Awaitable[None]], *, max_body_bytes: int, calls_limit: int) -> None:
        self._answer = answer
        self._max_body_bytes = max_body_bytes
        self._calls_limit = calls_limit
        self._calls = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        call = Call(request_id_of(scope), b"", send, _sane_header(scope, b"x-parkway-client") or "")
        self._calls += 1
        try:
            if self._calls > self._calls_limit:
                raise Overloaded(f"{self._calls_limit} requests are being answered already", retry_after_s=1.0)
            call.body = await _read_body(receive, self._max_body_bytes)
        except ClientGone:
            return
        except ParkwayError as error:
            await call.fail(error)
        else:
            # Watching the connection is what frees a sequence whose client left, before the first token too.
            async with Tasks("call") as tasks:
                work = tasks.start(self._work(call), name=call.request_id)
                gone = tasks.start(_until_gone(receive), name=f"{call.request_id}/connection")
                await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._calls -= 1

    async def _work(self, call: Call) -> None:
        try:
            await self._answer(call)
        except ParkwayError as error:
            await call.fail(error)
        except Exception:  # a defect of ours: the client gets an answer, the log gets the traceback
            log.exception("%s failed", call.request_id)
            await call.fail(InternalError("the engine failed on this request"))


def request_id_of(scope: Scope) -> str:
    """The id that the caller gave in `x-request-id` if it is a sane one, else a fresh one."""
    return _sane_header(scope, b"x-request-id") or new_id("req")


def _sane_header(scope: Scope, name: bytes) -> str | None:
    """The value of a header that is an id of some kind; None where it is absent or anything else."""
    given = next((value for key, value in scope["headers"] if key == name), b"")
    return given.decode() if _SANE_ID.fullmatch(given) else None


async def _read_body(receive: Receive, limit: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        message: Message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        part = message.get("body", b"")
        size += len(part)
        if size > limit:
            raise BodyTooLarge(f"the body is over {limit} bytes; the engine's max_body_bytes sets the limit")
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
