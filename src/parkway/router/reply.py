"""A reply: what an endpoint answers, from its headers to its last byte or to the moment that nobody wants it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress

import aiohttp
import msgspec

from parkway.core.errors import DeadlineExceeded, EndpointFailed, StreamInterrupted
from parkway.router.candidate import Candidate
from parkway.router.endpoint import Endpoint

MAX_REFUSAL_BYTES = 64 * 1024


class Reply:
    """An endpoint's answer, whose headers have arrived.

    Args:
        candidate: The endpoint that answers; counts this reply as outstanding until `close`.
        attempts: How many endpoints were asked for it, this one included.
    """

    __slots__ = ("_candidate", "_closed", "_read_ahead", "_response", "attempts", "endpoint", "status")

    def __init__(self, candidate: Candidate, response: aiohttp.ClientResponse, attempts: int) -> None:
        self._candidate = candidate
        self._response = response
        self._read_ahead: bytes | None = None
        self._closed = False
        self.endpoint: Endpoint = candidate.endpoint
        self.attempts = attempts
        self.status: int = response.status

    @property
    def headers(self) -> Mapping[str, str]:
        """The endpoint's headers; names in any case."""
        return self._response.headers

    async def read(self, max_bytes: int) -> bytes:
        """The whole body.

        Raises:
            EndpointFailed: It is over `max_bytes`, or the connection broke before its end.
            DeadlineExceeded: The call's deadline passed first.
        """
        parts: list[bytes] = []
        size = 0
        while part := await self._next():
            size += len(part)
            if size > max_bytes:
                raise EndpointFailed(f"endpoint {self.endpoint.endpoint_id} sent an answer of over {max_bytes} bytes")
            parts.append(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it arrives: each part is what the socket had, neither collected nor cut.

        Raises:
            StreamInterrupted: The connection broke before the end.
            DeadlineExceeded: The call's deadline passed first.
        """
        while part := await self._next():
            yield part

    async def refusal_code(self) -> str | None:
        """The `code` of an OpenAI error object in a small body, None for anything else. `read` still gives it all."""
        if (self._response.content_length or 0) > MAX_REFUSAL_BYTES:
            return None
        parts: list[bytes] = []
        while sum(map(len, parts)) <= MAX_REFUSAL_BYTES and (part := await self._next()):
            parts.append(part)
        self._read_ahead = b"".join(parts)
        try:
            return msgspec.json.decode(self._read_ahead, type=_Refusal).error.code
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None

    async def finish(self, grace_s: float = 0.1) -> None:
        """For a reader who has seen the end of what was said, such as `[DONE]`, but not yet that of the body.

        Waits at most `grace_s` for it, so that the connection can carry another request. Raises nothing.
        """
        with suppress(TimeoutError, EndpointFailed, DeadlineExceeded):
            async with asyncio.timeout(grace_s):
                await self._next()

    def close(self) -> None:
        """Gives the endpoint's place back. What was not read to its end is cut off at the socket, at once."""
        if self._closed:
            return
        self._closed = True
        self._candidate.outstanding -= 1
        connection = self._response.connection
        if connection is not None and connection.transport is not None:
            # Closing alone would first wait until what we had to send is sent; the engine's slot ought to be free now.
            connection.transport.abort()
        self._response.close()

    async def _next(self) -> bytes:
        """The next bytes; empty at the end."""
        if self._read_ahead is not None:
            ahead, self._read_ahead = self._read_ahead, None
            if ahead:
                return ahead
        try:
            return await self._response.content.readany()
        except aiohttp.ClientError as error:
            self._candidate.suspect(f"the connection broke within an answer ({error})")
            raise StreamInterrupted(
                f"endpoint {self.endpoint.endpoint_id} went away before the end of its answer; send the request again"
            ) from error
        except TimeoutError as error:
            raise DeadlineExceeded(
                f"endpoint {self.endpoint.endpoint_id} had not finished its answer at the request's deadline"
            ) from error


class _Fault(msgspec.Struct):
    code: str | None = None


class _Refusal(msgspec.Struct):
    error: _Fault
