"""The socket's side of HTTP: uvicorn's, with the limits that it leaves to whoever stands in front of it.

Parkway may be the front. A client that sends its headers byte by byte, or headers without end, or opens connections
and says nothing, costs a bounded time and a bounded memory.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from parkway.core.errors import HeadTooLarge, MalformedHTTP, Overloaded, ParkwayError, SlowHead
from parkway.core.ids import new_id
from parkway.core.wire import encode
from parkway.gateway.decision import Asked
from parkway.gateway.door import Door

MAX_HEAD_BYTES = 64 * 1024
"""Of a request line and its headers together. A token of an identity provider may be some thousand bytes long."""

MAX_HEADERS = 128

_MAX_PIPELINED = 8  # requests that were sent before the answer of the one before; nobody's client does it today

_LINGER_S = 1.0  # for a refusal to arrive, while more is sent that nobody reads

_REASONS = {400: b"Bad Request", 408: b"Request Timeout", 431: b"Request Header Fields Too Large"}


class HeadWithBody:
    """The transport of one exchange, on which the head of the answer goes out together with what follows it.

    uvicorn writes the two one after the other, and each write is a call of the system and a packet: for a short
    answer that is a good part of what it costs. Nothing waits for it: in an answer of ours the body follows at once.
    """

    __slots__ = ("_cycle", "_head", "_transport", "close", "is_closing")

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle
        self._transport = cycle.transport
        self._head: bytes | None = None
        self.close = cycle.transport.close
        self.is_closing = cycle.transport.is_closing

    def write(self, data: bytes) -> None:
        if not self._cycle.response_started:  # 100 Continue
            self._transport.write(data)
        elif self._head is None:
            self._head = data
        else:
            self._transport.write(self._head + data if self._head else data)
            self._head = b""


class BoundedProtocol(HttpToolsProtocol):
    """One connection of a client. The `door` says how long and how many, and hears who was refused."""

    def __init__(self, *arguments: Any, door: Door, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._door = door
        self._in_head = True
        self._head_bytes = 0
        self._refused = False
        self._clock: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        super().connection_made(transport)
        if len(self.connections) > (most := self._door.config.gateway.max_connections):
            self._refuse(Overloaded(f"this gateway has {most} connections, set by gateway.max_connections; try again",
                                    retry_after_s=1))  # fmt: skip
            return
        self._start_clock()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_clock()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        self._head_bytes += len(data)
        super().data_received(data)
        if not self._in_head or self._refused:
            self._head_bytes = 0
            return
        if self._head_bytes > MAX_HEAD_BYTES:
            self._refuse(HeadTooLarge(f"the request's headers are over {MAX_HEAD_BYTES} bytes; send less"))
        elif self._clock is None:
            self._start_clock()

    def on_message_begin(self) -> None:
        self._in_head = True
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        if len(self.headers) > MAX_HEADERS:
            self._refuse(HeadTooLarge(f"the request has over {MAX_HEADERS} headers; send fewer"))
            raise ValueError("too many headers")

    def on_headers_complete(self) -> None:
        self._in_head = False  # until the next request begins; uvicorn has a time-out for connections that are idle
        self._stop_clock()
        if len(self.pipeline) >= _MAX_PIPELINED:
            self._refuse(MalformedHTTP(f"over {_MAX_PIPELINED} requests at once on one connection; await an answer"))
            raise ValueError("too many requests at once")
        super().on_headers_complete()
        if self.cycle.scope["method"] != "HEAD":  # of which nothing is written behind the head
            self.cycle.transport = HeadWithBody(self.cycle)  # pyright: ignore[reportAttributeAccessIssue]

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's signature
        self._refuse(MalformedHTTP("what was sent is not HTTP/1.1, or could be read in more than one way"))

    def _refuse(self, error: ParkwayError) -> None:
        """Answers and closes. What is read after this is thrown away."""
        if self._refused or self.transport.is_closing():
            return
        self._refused = True
        self._stop_clock()
        request_id = new_id("req")
        self._door.note(error, Asked("connection", request_id, self.client[0] if self.client else ""))
        body = encode(error.to_body(request_id))
        reason = _REASONS.get(error.status, b"Service Unavailable")
        headers = {"content-type": "application/json", "content-length": str(len(body)), "connection": "close",
                   "x-request-id": request_id, **error.headers()}  # fmt: skip
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode()
        # An answer that is being written is not cut into, and none is given before that of the request before.
        answering = self.cycle is not None and not self.cycle.response_complete
        if not answering or not (self._in_head or self.cycle.response_started):
            self.transport.write(b"HTTP/1.1 %d %s\r\n%s\r\n%s" % (error.status, reason, lines, body))
            if self.transport.can_write_eof():
                # A socket that is closed over what was not read takes the answer with it.
                self.transport.write_eof()
                self._clock = self.loop.call_later(_LINGER_S, self.transport.close)
                return
        self.transport.close()

    def _start_clock(self) -> None:
        self._stop_clock()
        self._clock = self.loop.call_later(self._door.config.gateway.head_timeout_s, self._late)

    def _stop_clock(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None

    def _late(self) -> None:
        self._clock = None
        if self.cycle is not None and not self.cycle.response_complete:
            self._start_clock()  # it was sent too early: its time begins with the end of the answer before
            return
        seconds = self._door.config.gateway.head_timeout_s
        self._refuse(
            SlowHead(f"the request's headers did not arrive within {seconds:g} s; set by gateway.head_timeout_s")
        )


def bounded(door: Door) -> Any:
    """What uvicorn takes as its protocol."""
    return partial(BoundedProtocol, door=door)
