"""A client that speaks another protocol: to the pipeline it asks for a chat and takes a chat answer."""

from __future__ import annotations

from typing import Any

import msgspec

from parkway.aggregate.dialects.dialect import Dialect
from parkway.pipeline.exchange import Client, Headers


class DialectClient:
    """Implements `pipeline.exchange.Client` over another client.

    Whatever makes, keeps or changes chat answers on their way works for every dialect: the translation is the last
    thing before the socket. An answer that is not streamed is sent once it is whole, so that until then an error can
    take its place.
    """

    def __init__(self, client: Client, dialect: Dialect) -> None:
        self._client = client
        self._dialect = dialect
        self._status = 0
        self._headers: Headers = []
        self._body: list[bytes] = []
        self._failed = False

    async def read(self, max_bytes: int) -> bytes:
        return self._dialect.chat(await self._client.read(max_bytes))

    async def start(self, status: int, headers: Headers) -> None:
        if self._dialect.stream and status < 400:
            await self._client.start(status, headers)
        else:
            self._status, self._headers, self._body = status, headers, []

    async def send(self, data: bytes, *, more: bool) -> None:
        if self._client.started:
            await self._send_events(data, more=more)
            return
        self._body.append(data)
        if not more:
            status, body = self._whole(b"".join(self._body))
            length = (b"content-length", str(len(body)).encode())
            kept = [header for header in self._headers if header[0] != b"content-length"]
            await self._client.start(status, [*kept, length])
            await self._client.send(body, more=False)

    @property
    def started(self) -> bool:
        return self._client.started

    @property
    def finished(self) -> bool:
        return self._client.finished

    @property
    def left(self) -> bool:
        return self._client.left

    async def _send_events(self, data: bytes, *, more: bool) -> None:
        events = self._dialect.feed(data)
        if self._dialect.failed is not None and not self._failed:
            self._failed = True
            events += self._dialect.failure(self._dialect.failed)
        elif not more and not self._failed:
            events += self._dialect.ending()
        if events or not more:
            await self._client.send(events, more=more)

    def _whole(self, body: bytes) -> tuple[int, bytes]:
        if self._status < 400:
            return self._status, self._dialect.whole(body)
        return self._dialect.refusal(self._status, _error_in(body))


def _error_in(body: bytes) -> dict[str, Any]:
    """OpenAI's error object in the body of an answer."""
    try:
        error = msgspec.json.decode(body)["error"]
    except (msgspec.DecodeError, KeyError, TypeError):
        return {}
    return error if isinstance(error, dict) else {"message": str(error)}
