"""Reading a request's body, within limits on size and time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope

from parkway.core.deadline import Deadline
from parkway.core.errors import BodyTooLarge, DeadlineExceeded, InvalidRequest


async def read_body(headers: Mapping[bytes, bytes], receive: Receive, max_bytes: int, timeout_s: float) -> bytes:
    """The whole body.

    Args:
        headers: As by `headers_of`.

    Raises:
        InvalidRequest: It is compressed.
        BodyTooLarge: Announced or sent more than `max_bytes`.
        DeadlineExceeded: It did not arrive within `timeout_s`.
        ClientDisconnect: The client left before its end.
    """
    _check_head(headers, max_bytes)
    try:
        with Deadline.after(timeout_s):
            return await _read_all(receive, max_bytes)
    except TimeoutError as error:
        raise DeadlineExceeded(
            f"the request body did not arrive within {timeout_s:g} s; set by gateway.body_timeout_s"
        ) from error


async def stream_body(
    headers: Mapping[bytes, bytes], receive: Receive, max_bytes: int, timeout_s: float
) -> AsyncIterator[bytes]:
    """The body, piece by piece, for what need not be in memory as a whole.

    Args:
        timeout_s: The longest silence of the client.

    Raises:
        InvalidRequest, BodyTooLarge, DeadlineExceeded, ClientDisconnect: As `read_body`, also in the middle.
    """
    _check_head(headers, max_bytes, "bounds.max_document_bytes")
    size = 0
    more = True
    while more:
        try:
            with Deadline.after(timeout_s):
                message = await receive()
        except TimeoutError as error:
            raise DeadlineExceeded(
                f"nothing more of the request body came within {timeout_s:g} s; set by gateway.body_timeout_s"
            ) from error
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        piece: bytes = message.get("body", b"")
        size += len(piece)
        if size > max_bytes:
            raise _too_large(max_bytes, "bounds.max_document_bytes")
        if piece:
            yield piece
        more = message.get("more_body", False)


def headers_of(scope: Scope) -> dict[bytes, bytes]:
    """The headers by their names, in lower case; of several with one name the first counts."""
    return dict(reversed(scope["headers"]))


def joined_header(scope: Scope, name: bytes) -> str | None:
    """All headers called `name` (lower case) as one, as a list: what is sent twice shows."""
    values = [value for key, value in scope["headers"] if key == name]
    return b",".join(values).decode("latin-1") if values else None


def source_of(scope: Scope) -> str:
    """The address that the request came from, as far as the socket knows: a proxy's, where one stands in front."""
    client = scope.get("client")
    return client[0] if client else ""


async def _read_all(receive: Receive, max_bytes: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > max_bytes:
            raise _too_large(max_bytes)
        more = message.get("more_body", False)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _check_head(headers: Mapping[bytes, bytes], max_bytes: int, setting: str = "bounds.max_body_bytes") -> None:
    encoding = headers.get(b"content-encoding", b"identity")
    if encoding != b"identity":
        told = encoding.decode("latin-1")
        raise InvalidRequest(f"content-encoding {told!r} is not supported; send the body as plain JSON")
    announced = headers.get(b"content-length")
    if announced is not None and announced.isdigit() and int(announced) > max_bytes:
        raise _too_large(max_bytes, setting)


def _too_large(max_bytes: int, setting: str = "bounds.max_body_bytes") -> BodyTooLarge:
    return BodyTooLarge(f"the body is over {max_bytes} bytes; send less, or raise {setting}")
