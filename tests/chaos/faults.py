"""An upstream that breaks in every way that we could think of, at the level of bytes on a socket.

Plain asyncio and not an HTTP library: most of what it does no library would do.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
DONE = b"data: [DONE]\n\n"


@dataclass
class Connection:
    """One request that was read, and the socket on which to fail at it."""

    body: dict[str, object]
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @property
    def stream(self) -> bool:
        return bool(self.body.get("stream"))

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def chunk(self, data: bytes) -> None:
        """A chunk of a chunked body."""
        await self.send(b"%x\r\n%s\r\n" % (len(data), data))

    def cut(self) -> None:
        """Closes the connection at once."""
        self.writer.transport.abort()

    async def left(self) -> None:
        """Returns when the other side has gone."""
        with suppress(ConnectionError):
            while await self.reader.read(65_536):
                pass


Fault = Callable[[Connection], Awaitable[None]]


def piece(content: str | None = None, finish: str | None = None) -> bytes:
    """One event of a chat stream."""
    delta = {"role": "assistant"} if content is None else {"content": content}
    choice = {"index": 0, "delta": {} if finish else delta, "finish_reason": finish}
    body = {"id": "chatcmpl-x", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    return b"data: " + json.dumps(body).encode() + b"\n\n"


def whole(content: str = "fine") -> bytes:
    message = {"role": "assistant", "content": content}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return json.dumps(
        {"id": "chatcmpl-x", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
    ).encode()


def error_event(message: str = "out of memory", **fields: str) -> bytes:
    return b"data: " + json.dumps({"error": {"message": message, **fields}}).encode() + b"\n\n"


def response(status: int, body: bytes, headers: bytes = b"") -> bytes:
    head = b"HTTP/1.1 %d X\r\ncontent-type: application/json\r\ncontent-length: %d\r\n" % (status, len(body))
    return head + headers + b"\r\n" + body


async def well(connection: Connection) -> None:
    """No fault: a proper answer, streamed or whole."""
    if not connection.stream:
        await connection.send(response(200, whole()))
        return
    await connection.send(STREAM_HEAD)
    for part in (piece(), piece("fi"), piece("ne"), piece(finish="stop"), DONE):
        await connection.chunk(part)
    await connection.send(b"0\r\n\r\n")


def raw(*parts: bytes, then_cut: bool = True) -> Fault:
    """Sends exactly this."""

    async def fail(connection: Connection) -> None:
        for part in parts:
            await connection.send(part)
        if then_cut:
            connection.writer.close()

    return fail


def events(*parts: bytes, end: bool = True) -> Fault:
    """A stream of these events, each in a chunk of its own; then its end, or a cut."""

    async def fail(connection: Connection) -> None:
        await connection.send(STREAM_HEAD)
        for part in parts:
            await connection.chunk(part)
        if end:
            await connection.send(b"0\r\n\r\n")
        else:
            connection.writer.close()

    return fail


def status(code: int, headers: bytes = b"", error: str = "internal_error") -> Fault:
    body = json.dumps({"error": {"message": "no", "type": "server_error", "code": error}}).encode()
    return raw(response(code, body, headers), then_cut=False)


async def say_nothing(connection: Connection) -> None:
    await connection.left()


async def reset(connection: Connection) -> None:
    """As the kernel does for a process that was killed."""
    sock = connection.writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.cut()


def slowly(fault: Fault, first_s: float) -> Fault:
    async def fail(connection: Connection) -> None:
        await asyncio.sleep(first_s)
        await fault(connection)

    return fail


async def drip(connection: Connection) -> None:
    """A proper stream, a byte at a time."""
    await connection.send(STREAM_HEAD)
    for byte in piece("slow") + piece(finish="stop") + DONE:
        await connection.chunk(bytes([byte]))
        await asyncio.sleep(0)
    await connection.send(b"0\r\n\r\n")


async def endless(connection: Connection) -> None:
    await connection.send(STREAM_HEAD)
    while True:
        await connection.chunk(piece("more ") * 10)
        await asyncio.sleep(0.005)


async def enormous_line(connection: Connection) -> None:
    """An event that does not end."""
    await connection.send(STREAM_HEAD)
    await connection.chunk(b'data: {"choices": "')
    for _ in range(40):
        await connection.chunk(b"x" * 65_536)
    await connection.left()


@dataclass
class FaultyUpstream:
    """Meets the n-th request with the n-th fault, and the last one ever after; health checks pass."""

    faults: list[Fault]
    url: str = ""
    requests: list[dict[str, object]] = field(default_factory=list)
    healthy: bool = True
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while (request := await _read(reader)) is not None and not writer.is_closing():
                if request is _CHECK:
                    writer.write(response(200 if self.healthy else 503, b"{}"))
                    continue
                self.requests.append(request)
                fault = self.faults[min(len(self.requests), len(self.faults)) - 1]
                await fault(Connection(request, reader, writer))
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    def close(self) -> None:
        for writer in self._writers:
            writer.transport.abort()


_CHECK: dict[str, object] = {}


async def _read(reader: asyncio.StreamReader) -> dict[str, object] | None:
    """The JSON of a request; `_CHECK` for a health check, None at the end of the connection."""
    try:
        first = await reader.readexactly(1)
        if first == b"\x16":  # the beginning of a TLS handshake
            return None
        head = first + await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    if head.startswith(b"GET "):
        return _CHECK
    length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    return json.loads(await reader.readexactly(int(length.split(b":")[1])))


@asynccontextmanager
async def faulty(*faults: Fault, tls: ssl.SSLContext | None = None) -> AsyncIterator[FaultyUpstream]:
    """An upstream on a port of its own."""
    served = FaultyUpstream(list(faults))
    server = await asyncio.start_server(served.serve, "127.0.0.1", 0, ssl=tls)
    scheme = "https" if tls else "http"
    served.url = f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        yield served
    finally:
        server.close()
        served.close()
