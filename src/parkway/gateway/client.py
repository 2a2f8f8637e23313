"""The client at the other end of an ASGI connection."""

from __future__ import annotations

import asyncio
from types import TracebackType

from starlette.types import Message, Receive, Scope, Send

from parkway.core.errors import BodyTooLarge, DeadlineExceeded, InvalidRequest
from parkway.core.tasks import Tasks
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
        self._watch: asyncio.TimerHandle | asyncio.Task[None] | None = None
        self.left = False
        self.started = False
        self.finished = False

    async def read(self, max_bytes: int) -> bytes:
        """The whole body; from here on the client's leaving is noticed.

        Raises:
            BodyTooLarge: Announced or sent more than `max_bytes`.
            DeadlineExceeded: The body did not arrive in time.
        """
        encoding = self.header(b"content-encoding")
        if encoding not in (None, "identity"):
            raise InvalidRequest(f"content-encoding {encoding!r} is not supported; send the body as plain JSON")
        announced = self.header(b"content-length")
        if announced is not None and announced.isdigit() and int(announced) > max_bytes:
            raise _too_large(max_bytes)
        try:
            async with asyncio.timeout(self._body_timeout_s):
                body = await self._read_all(max_bytes)
        except TimeoutError as error:
            raise DeadlineExceeded(
                f"the request body did not arrive within {self._body_timeout_s:g} s; set by gateway.body_timeout_s"
            ) from error
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        if task is not None:
            self._watch = loop.call_later(_WATCH_AFTER_S, self._begin_watch, task)
        return body

    async def _read_all(self, max_bytes: int) -> bytes:
        message = await self._receive()
        body: bytes = message.get("body", b"")
        if message.get("more_body"):
            parts, size = [body], len(body)
            while message.get("more_body"):
                message = await self._receive()
                parts.append(message.get("body", b""))
                size += len(parts[-1])
                if size > max_bytes:
                    raise _too_large(max_bytes)
            body = b"".join(parts)
        if message["type"] == "http.disconnect":
            self.left = True
            raise asyncio.CancelledError
        if len(body) > max_bytes:
            raise _too_large(max_bytes)
        return body

    def header(self, name: bytes) -> str | None:
        """The first header called `name` (lower case), as text."""
        for key, value in self._scope["headers"]:
            if key == name:
                return value.decode("latin-1")
        return None

    async def start(self, status: int, headers: Headers) -> None:
        self.started = True
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def send(self, data: bytes, *, more: bool) -> None:
        if not more:
            self.finished = True
        await self._send({"type": "http.response.body", "body": data, "more_body": more})

    def _begin_watch(self, task: asyncio.Task[object]) -> None:
        self._watch = _WATCHES.start(self._until_gone(task), name="disconnect")

    async def _until_gone(self, task: asyncio.Task[object]) -> None:
        message: Message = {"type": "http.request"}
        while message["type"] != "http.disconnect":
            message = await self._receive()
        if not self.finished:
            self.left = True
            task.cancel()

    async def __aenter__(self) -> AsgiClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if self._watch is not None:
            self._watch.cancel()
        if not (self.left and isinstance(error, asyncio.CancelledError)):
            return False
        task = asyncio.current_task()
        if task is not None:
            task.uncancel()  # the cancellation was ours and ends here; the server's own go through
        return True


def _too_large(max_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(f"the body is over {max_bytes} bytes; send less, or raise bounds.max_body_bytes")
