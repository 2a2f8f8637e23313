"""A connection to an endpoint that speaks HTTP/1.1: one exchange at a time, read as it comes.

Written for the one thing that the router does with it, which a client for everything (aiohttp) does at four times the
cost: a POST with a body that is in memory, an answer that is relayed. The parser is llhttp's (httptools), Node's own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping

import httptools

MAX_HEAD_BYTES = 64 * 1024
"""Of status line and headers together."""

MAX_HEADERS = 256

_HIGH_WATER = 256 * 1024  # unread bytes of an answer beyond which the socket is not read
_NO_BODY = frozenset({204, 304})


class Broken(Exception):
    """The connection ended before the answer did, or what came over it is not HTTP.

    Attributes:
        answered: Whether headers had arrived.
        http: False if what came is not HTTP.
        kept_alive: Whether the connection had carried an exchange before: it may just have been closed for idleness.
    """

    def __init__(self, fault: str, *, answered: bool = False, http: bool = True) -> None:
        super().__init__(fault)
        self.answered = answered
        self.http = http
        self.kept_alive = False


class Late(Exception):
    """The deadline passed while the endpoint was waited for."""


class Headers(Mapping[str, str]):
    """An answer's headers: names in any case.

    Args:
        values: By names in lower case, as they came: hardly any is ever asked for.
    """

    __slots__ = ("_values",)

    def __init__(self, values: dict[bytes, bytes]) -> None:
        self._values = values

    def __getitem__(self, name: str) -> str:
        return self._values[name.lower().encode("latin-1")].decode("latin-1")

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower().encode("latin-1") in self._values

    def __iter__(self) -> Iterator[str]:
        return (name.decode("latin-1") for name in self._values)

    def __len__(self) -> int:
        return len(self._values)


_NO_HEADERS = Headers({})


class Connection(asyncio.Protocol):
    """One socket. `send` begins an exchange; `read` gives what has arrived of the answer's body; `reusable` tells
    whether another exchange may follow.

    The deadline of an exchange is that of the whole: whoever waits past it gets `Late`.
    """

    __slots__ = (
        "_body", "_buffered", "_complete", "_deadline", "_error", "_head_bytes", "_headers", "_lives_on", "_loop",
        "_pairs", "_parser", "_paused", "_rings_at", "_timer", "_to_its_end", "_transport", "_waiter", "exchanges",
        "idle_since", "status",
    )  # fmt: skip

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._rings_at = 0.0
        self._deadline = 0.0
        self._pairs: list[tuple[bytes, bytes]] = []
        self._headers = _NO_HEADERS
        self._body: list[bytes] = []
        self._buffered = 0
        self._head_bytes = 0
        self._complete = True
        self._lives_on = False
        self._to_its_end = False  # the answer has no length of its own: it ends with the connection
        self._paused = False
        self._error: Broken | None = None
        self.status = 0
        """Of the answer; 0 until its headers have arrived."""
        self.exchanges = 0
        """How many were begun."""
        self.idle_since = 0.0
        """When the pool got it back, on the loop's clock."""

    # What the router calls.

    async def send(self, request: bytes, deadline: float) -> Headers:
        """Sends a whole request and waits for the headers of its answer; `status` has their status.

        Args:
            deadline: Of the whole exchange, on the loop's clock.

        Raises:
            Broken: The connection ended first, or what came is not HTTP.
            Late: The deadline passed first.
        """
        transport = self._transport
        if transport is None or self._error is not None:
            raise self._error or Broken("it closed the connection")
        self.exchanges += 1
        self.status = 0
        self._deadline = deadline
        self._complete = self._to_its_end = self._lives_on = False
        self._pairs = []
        self._head_bytes = 0
        transport.write(request)
        while not self.status:
            if self._error is not None:
                raise self._error
            await self._news()
        return self._headers

    async def read(self) -> bytes:
        """What has arrived of the body since the last time, once there is something; empty at its end.

        Raises:
            Broken, Late: As `send`.
        """
        while not self._body:
            if self._complete:
                return b""
            if self._error is not None:
                raise self._error
            await self._news()
        return self._take()

    def rest(self) -> bytes | None:
        """What has not been read of the body yet, if all of it has arrived."""
        return self._take() if self._complete else None

    def _take(self) -> bytes:
        data = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._body = []
        self._buffered = 0
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
        return data

    @property
    def reusable(self) -> bool:
        """Whether the last exchange is over, was read to its end, and another one may follow."""
        return (
            self._complete
            and not self._body
            and self._error is None
            and self._transport is not None
            and not self._transport.is_closing()
            and (self._lives_on or not self.exchanges)
        )

    def abort(self) -> None:
        """Closes the socket now. What was still to be sent is not: whoever works for us at the other end sees it."""
        self._stop_timer()
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # pyright: ignore[reportAttributeAccessIssue] - TCP gives the whole interface

    def data_received(self, data: bytes) -> None:
        if self._complete:
            self._fail(Broken("it sent what nobody asked for", http=False))
            return
        if not self.status:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES and not self._fits(data):
                return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._fail(Broken("it changed to another protocol", http=False))
        except httptools.HttpParserError as error:
            if self._error is None:
                self._fail(Broken(f"what it sent is not HTTP ({error})", answered=bool(self.status), http=False))
        if self._buffered > _HIGH_WATER and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._to_its_end and self.status and exc is None:
            self._complete = True
        elif not self._complete and self._error is None:
            self._error = Broken(_why(exc), answered=bool(self.status))
        elif self._error is None:
            self._error = Broken("it closed the connection")
        self._wake()

    # What the parser calls.

    def on_message_begin(self) -> None:
        if self._complete:
            raise ValueError("a second answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._pairs.append((name, value))
        if len(self._pairs) > MAX_HEADERS:
            raise ValueError("too many headers")

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:  # an interim answer: the real one is still to come
            self._pairs = []
            return
        values = {name.lower(): value for name, value in reversed(self._pairs)}  # of several the first counts
        self._headers = Headers(values)
        if b"content-length" not in values and status not in _NO_BODY:
            self._to_its_end = not _in_chunks(self._pairs)
        self.status = status

    def on_body(self, data: bytes) -> None:
        self._body.append(data)
        self._buffered += len(data)

    def on_message_complete(self) -> None:
        if self.status:  # else an interim answer
            self._complete = True
            self._lives_on = self._parser.should_keep_alive()

    # Waiting.

    def _news(self) -> asyncio.Future[None]:
        """Is done once something has arrived or the connection has ended; raises Late at the deadline."""
        # The timer of an exchange before will do where it rings sooner: it is then set again. So a busy connection
        # sets one now and then, and not one for each exchange.
        if self._timer is None or self._rings_at > self._deadline:
            self._set_timer()
        self._waiter = waiter = self._loop.create_future()
        return waiter

    def _set_timer(self) -> None:
        self._stop_timer()
        self._rings_at = self._deadline
        self._timer = self._loop.call_at(self._deadline, self._ring)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _ring(self) -> None:
        self._timer = None
        if self._waiter is None or self._waiter.done():
            return
        if self._rings_at < self._deadline:
            self._set_timer()
        else:
            self._waiter.set_exception(Late())

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fits(self, data: bytes) -> bool:
        # The last piece may hold the end of the head and a large part of the body: it is the head that is bounded.
        end = data.find(b"\r\n\r\n")
        if end >= 0 and self._head_bytes - len(data) + end <= MAX_HEAD_BYTES:
            return True
        self._fail(Broken(f"the head of its answer is over {MAX_HEAD_BYTES} bytes", http=False))
        return False

    def _fail(self, error: Broken) -> None:
        self._error = error
        if self._transport is not None:
            self._transport.abort()
        self._wake()


def _in_chunks(pairs: list[tuple[bytes, bytes]]) -> bool:
    """Whether the body says itself where it ends; of several headers the last one counts."""
    codings = [value for name, value in pairs if name.lower() == b"transfer-encoding"]
    return bool(codings) and b"chunked" in codings[-1].lower()


def _why(exc: Exception | None) -> str:
    if isinstance(exc, ConnectionResetError):
        return "the connection was reset"
    return "it closed the connection before the end of its answer"
