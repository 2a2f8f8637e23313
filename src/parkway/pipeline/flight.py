"""A flight: one request on its way to an endpoint for all who ask the same at the same time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

from msgspec.structs import replace

from parkway.aggregate.transcript import Transcript
from parkway.core.errors import EndpointFailed
from parkway.core.tasks import Tasks
from parkway.pipeline.exchange import Exchange, Headers

MAX_BYTES = 1_048_576
"""Of a stream that those who come later may still begin to read, and that anybody may lag behind."""

MAX_FLIGHTS = 4096
"""That can be joined; one more is for who asks alone."""

Form = tuple[bytes, bool, bool, bool, str | None, tuple[str, ...]]
"""The key of a question, and all on which the bytes of its answer depend besides: see `recall`."""


class Flight:
    """The answer while it arrives, and those who read it, each at its own pace.

    To the stages that ask the endpoint it is the client. Its work is a task of its own: who began it may leave while
    others read on, and when nobody is left, it is cancelled, which frees the endpoint.

    Attributes:
        exchange: What the stages learn about it.
        over: Whether it came to its end, good or bad.
        error: Why there is no answer.
        open: Whether others may still join: it is all here, from the first byte on.
    """

    def __init__(self, exchange: Exchange, deadline: float) -> None:
        self.exchange = replace(
            exchange, client=self, deadline=deadline, transcript=Transcript(), answer_headers=[], closing=b""
        )
        self.over = False
        self.error: Exception | None = None
        self.open = True
        self.task: asyncio.Task[None] | None = None
        self.started = False
        self.finished = False
        self.left = False
        self._pieces: list[bytes] = []
        self._first = 0  # the number of the piece that stands first in `_pieces`
        self._held = 0  # bytes in `_pieces`
        self._readers: set[Reader] = set()
        self._moved = asyncio.Event()
        self._read_on = asyncio.Event()

    async def read(self, max_bytes: int) -> bytes:  # noqa: ARG002 - of `Client`
        return self.exchange.body

    async def start(self, status: int, headers: Headers) -> None:  # noqa: ARG002 - each reader is told its own
        self.started = True

    async def send(self, data: bytes, *, more: bool) -> None:  # noqa: ARG002 - likewise
        """Adds a piece of a stream; waits while everybody who reads lags too far behind."""
        self._pieces.append(data)
        self._held += len(data)
        self._moved.set()
        while self._held > MAX_BYTES:
            self.open = False
            self._trim()
            if self._held > MAX_BYTES and not self._leave_behind():
                self._read_on.clear()
                await self._read_on.wait()

    def land(self, error: Exception | None = None) -> None:
        """Ends it: with the answer, or with what went wrong."""
        self.over, self.error = True, error
        self._moved.set()

    def join(self) -> Reader:
        """One more who reads it, from the beginning."""
        reader = Reader()
        self._readers.add(reader)
        return reader

    def recorded(self) -> bytes:
        """The whole of what was sent; only while it is `open`."""
        return b"".join((*self._pieces, self.exchange.closing))

    def leave(self, reader: Reader) -> None:
        """One fewer; the last one ends what nobody waits for."""
        self._readers.discard(reader)
        self._read_on.set()
        if not self._readers and not self.over:
            self.open = False
            if self.task is not None:
                self.task.cancel()

    async def next(self, reader: Reader) -> bytes:
        """What the reader has not seen yet; empty at the end.

        Raises:
            EndpointFailed: Others who read the same were held up by this reader.
            Exception: What went wrong with the flight.
        """
        while not reader.too_slow and reader.position == self._first + len(self._pieces):
            if self.error is not None:
                raise self.error
            if self.over:
                return b""
            self._moved.clear()
            await self._moved.wait()
        if reader.too_slow:
            raise EndpointFailed("this client read an answer that it shared with others too slowly")
        data = b"".join(self._pieces[reader.position - self._first :])
        reader.position = self._first + len(self._pieces)
        self._read_on.set()
        return data

    def _trim(self) -> None:
        """Drops the pieces that everybody has read."""
        slowest = min((reader.position for reader in self._readers), default=self._first + len(self._pieces))
        dropped = self._pieces[: slowest - self._first]
        del self._pieces[: slowest - self._first]
        self._first += len(dropped)
        self._held -= sum(map(len, dropped))

    def _leave_behind(self) -> bool:
        """Lets go of those who hold up others, if there are both: who waits has a right to go on."""
        end = self._first + len(self._pieces)
        if all(reader.position < end for reader in self._readers):
            return False
        for reader in [reader for reader in self._readers if reader.position == self._first]:
            reader.too_slow = True
            self._readers.discard(reader)
        return True


class Reader:
    """How far somebody has read a flight."""

    __slots__ = ("position", "too_slow")

    def __init__(self) -> None:
        self.position = 0
        self.too_slow = False


class Flights:
    """All flights of this process, by what they ask and in which form.

    Args:
        timeout_s: The longest that a flight may take; each who reads it has a deadline of its own.
    """

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self._flying: dict[Form, Flight] = {}
        self._tasks = Tasks("flights")

    def find(self, form: Form) -> Flight | None:
        """The one that asks the same, if it may still be joined."""
        flight = self._flying.get(form)
        return flight if flight is not None and flight.open else None

    def begin(
        self, form: Form, exchange: Exchange, work: Callable[[Flight], Coroutine[Any, Any, None]], *, shared: bool
    ) -> Flight:
        """A new one, of which `work` is the whole; `shared`: others may find it until its work is done."""
        flight = Flight(exchange, time.monotonic() + self.timeout_s)
        flight.task = self._tasks.start(work(flight), name=exchange.request_id)
        if shared and len(self._flying) < MAX_FLIGHTS:
            self._flying[form] = flight
            flight.task.add_done_callback(lambda _: self._forget(form, flight))
        return flight

    async def close(self) -> None:
        """Ends them all."""
        await self._tasks.close()

    def _forget(self, form: Form, flight: Flight) -> None:
        if self._flying.get(form) is flight:
            del self._flying[form]
