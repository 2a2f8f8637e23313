"""The client at the other end of an ASGI connection."""

from __future__ import annotations

import asyncio
import time
from types import TracebackType

from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send

from parkway.core.tasks import Tasks
from parkway.core.timers import Timer, at
from parkway.gateway.body import headers_of, joined_header, read_body
from parkway.pipeline.exchange import Headers

_WATCHES = Tasks("client")
"""One for all clients: a watch costs a task, and not a group of tasks besides."""

_WATCH_AFTER_S = 0.02
"""Most requests to a fast endpoint are over by then, and need no watch at all."""


class AsgiClient:
    """Implements `pipeline.exchange.Client`, and notices when the client leaves.

    Used as a context: from the end of the request body on, `receive` is watched, and a disconnect cancels the task
    that is inside the context, before the first token too. That is what frees the slot upstream.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send, body_timeout_s: float) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._body_timeout_s = body_timeout_s
        self._headers = headers_of(scope)
        self._watch: Timer | asyncio.Task[None] | None = None
        self.left = False
        self.started = False
        self.finished = False

    async def read(self, max_bytes: int) -> bytes:
        """The whole body, as by `read_body`; from here on the client's leaving is noticed."""
        try:
            body = await read_body(self._headers, self._receive, max_bytes, self._body_timeout_s)
        except ClientDisconnect:
            self.left = True
            raise asyncio.CancelledError from None
        self._watch = at(time.monotonic() + _WATCH_AFTER_S, self._begin_watch)
        return body

    def header(self, name: bytes) -> str | None:
        """The first header called `name` (lower case), as text."""
        value = self._headers.get(name)
        return None if value is None else value.decode("latin-1")

    def sent_any(self, names: frozenset[bytes]) -> bool:
        """Whether there is a header that has one of `names` (lower case)."""
        return not names.isdisjoint(self._headers)

    def joined_header(self, name: bytes) -> str | None:
        """All headers called `name` (lower case) as one, as by `body.joined_header`."""
        return joined_header(self._scope, name) if name in self._headers else None

    async def start(self, status: int, headers: Headers) -> None:
        self.started = True
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def send(self, data: bytes, *, more: bool) -> None:
        if not more:
            self.finished = True
        await self._send({"type": "http.response.body", "body": data, "more_body": more})

    def _begin_watch(self) -> None:
        self._watch = _WATCHES.start(self._until_gone(self._task), name="disconnect")

    async def _until_gone(self, task: asyncio.Task[object]) -> None:
        message: Message = {"type": "http.request"}
        while message["type"] != "http.disconnect":
            message = await self._receive()
        if not self.finished:
            self.left = True
            task.cancel()

    def __enter__(self) -> AsgiClient:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a client is answered in a task, which its leaving cancels")
        self._task: asyncio.Task[object] = task
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if self._watch is not None:
            self._watch.cancel()
        if not (self.left and isinstance(error, asyncio.CancelledError)):
            return False
        self._task.uncancel()  # the cancellation was ours and ends here; the server's own go through
        return True
