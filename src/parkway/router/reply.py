"""A reply: what an endpoint answers, from its headers to its last byte or to the moment that nobody wants it."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from email.utils import parsedate_to_datetime

import msgspec

from parkway.core.deadline import Deadline
from parkway.core.errors import DeadlineExceeded, EndpointFailed, StreamInterrupted
from parkway.core.trace import Span
from parkway.router.candidate import Candidate
from parkway.router.connection import Broken, Late
from parkway.router.connections import Answer
from parkway.router.endpoint import Endpoint

log = logging.getLogger(__name__)

MAX_REFUSAL_BYTES = 64 * 1024


class Reply:
    """An endpoint's answer, whose headers have arrived.

    Exactly one outcome of it is counted for its endpoint: failed, if it broke or was blamed; succeeded, if it was read
    to its end; none, if it was left before, or spared.

    Args:
        candidate: The endpoint that answers; counts this reply as outstanding until `close`.
        span: Of this attempt; `close` ends it.

    Attributes:
        tried: The endpoints that were asked for it, this one included.
    """

    __slots__ = (
        "_candidate",
        "_closed",
        "_judged",
        "_read_ahead",
        "_response",
        "_whole",
        "endpoint",
        "span",
        "status",
        "tried",
    )

    def __init__(self, candidate: Candidate, response: Answer, span: Span | None = None) -> None:
        self._candidate = candidate
        self._response = response
        self._read_ahead: bytes | None = None
        self._closed = False
        self._judged = False
        self._whole = False
        self.span = span
        if span is not None:
            span.attributes["http.response.status_code"] = response.status
        self.endpoint: Endpoint = candidate.endpoint
        self.status: int = response.status
        self.tried: list[Candidate] = [candidate]

    @property
    def attempts(self) -> int:
        """How many endpoints were asked for it, this one included."""
        return len(self.tried)

    @property
    def good(self) -> bool:
        """Whether no other endpoint could do better: an answer, or a refusal that is the client's own fault."""
        return self.status < 500 and self.status != 429

    @property
    def headers(self) -> Mapping[str, str]:
        """The endpoint's headers; names in any case."""
        return self._response.headers

    @property
    def retry_after_s(self) -> float | None:
        """When the endpoint asks to be tried again, in seconds from now; None where it does not say so."""
        value = self._response.headers.get("retry-after", "").strip()
        if value.isascii() and value.isdigit():
            return float(value[:9])
        try:
            return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
        except (ValueError, OverflowError):
            return None

    def blame(self, fault: str) -> None:
        """Counts the answer as a failure of its endpoint, once."""
        if not self._judged:
            self._judged = True
            self._candidate.circuit.failed(fault, time.monotonic())

    def spare(self) -> None:
        """Counts the answer neither for nor against its endpoint."""
        self._judged = True

    async def read(self, max_bytes: int) -> bytes:
        """The whole body.

        Raises:
            EndpointFailed: It is over `max_bytes`, or the connection broke before its end.
            DeadlineExceeded: The call's deadline passed first.
        """
        rest = self._response.rest() if self._read_ahead is None else None
        if rest is not None:
            if len(rest) > max_bytes:
                raise self._too_large(max_bytes)
            self._whole = True
            return rest
        parts: list[bytes] = []
        size = 0
        while part := await self._next():
            size += len(part)
            if size > max_bytes:
                raise self._too_large(max_bytes)
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
        announced = self._response.headers.get("content-length", "0")
        if not announced.isdigit() or int(announced) > MAX_REFUSAL_BYTES:
            return None
        parts: list[bytes] = []
        with suppress(StreamInterrupted):
            while sum(map(len, parts)) <= MAX_REFUSAL_BYTES and (part := await self._next()):
                parts.append(part)
        self._read_ahead = b"".join(parts)
        try:
            return msgspec.json.decode(self._read_ahead, type=_Refusal).error.code
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None

    async def finish(self, grace_s: float = 0.1) -> None:
        """For a reader who has seen the end of what was said, such as `[DONE]`, but not yet that of the body.

        Waits at most `grace_s` for it, so that the connection can carry another request. Raises nothing, and holds
        nothing against the endpoint any more.
        """
        self._whole = True
        with suppress(TimeoutError, EndpointFailed, DeadlineExceeded), Deadline.after(grace_s):
            await self._next()

    def close(self) -> None:
        """Gives the endpoint's place back. What was not read to its end is cut off at the socket, at once."""
        if self._closed:
            return
        self._closed = True
        self._candidate.give_back()
        if self._whole and not self._judged:
            self._judged = True
            self._candidate.circuit.succeeded(time.monotonic())
        if self.span is not None:
            self.span.end(str(self.status) if self.status >= 400 else None)
        self._response.close()

    def _too_large(self, max_bytes: int) -> EndpointFailed:
        return EndpointFailed(f"endpoint {self.endpoint.endpoint_id} sent an answer of over {max_bytes} bytes")

    async def _next(self) -> bytes:
        """The next bytes; empty at the end."""
        if self._read_ahead is not None:
            ahead, self._read_ahead = self._read_ahead, None
            if ahead:
                return ahead
        try:
            part = await self._response.read()
            self._whole = self._whole or not part
            return part
        except Broken as error:
            if not error.http:
                self.blame("what it sent is not HTTP")
                raise EndpointFailed(f"endpoint {self.endpoint.endpoint_id} sent an answer that is not HTTP") from error
            fault = "the connection broke within an answer"
            log.info("endpoint %s: %s: %r", self.endpoint.endpoint_id, fault, error)
            if not self._whole:
                self.blame(fault)
                self._candidate.suspect(fault)
            raise StreamInterrupted(
                f"endpoint {self.endpoint.endpoint_id} went away before the end of its answer; send the request again"
            ) from error
        except Late as error:
            raise DeadlineExceeded(
                f"endpoint {self.endpoint.endpoint_id} had not finished its answer at the request's deadline"
            ) from error


class _Fault(msgspec.Struct):
    code: str | None = None


class _Refusal(msgspec.Struct):
    error: _Fault
