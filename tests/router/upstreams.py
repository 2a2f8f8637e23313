"""Servers that fail in the ways in which real ones do, at the level of bytes on a socket."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal

from parkway.router.endpoint import Endpoint

ANSWER = b'{"id":"chatcmpl-1","object":"chat.completion","choices":[]}'


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Exchange:
    """One request and the connection on which to answer it."""

    request: Request
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def left(self) -> None:
        """Returns when the other side has closed."""
        with suppress(ConnectionError):
            while await self.reader.read(65536):
                pass


Behaviour = Callable[[Exchange], Awaitable[None]]


@dataclass
class Upstream:
    """A server whose n-th POST meets the n-th behaviour, and the last one ever after. GETs are health checks."""

    behaviours: list[Behaviour]
    url: str = ""
    health_status: int = 200
    requests: list[Request] = field(default_factory=list)
    checks: list[Request] = field(default_factory=list)
    connections: int = 0
    checked: asyncio.Event = field(default_factory=asyncio.Event)
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        try:
            while (request := await _read_request(reader)) is not None and not writer.is_closing():
                exchange = Exchange(request, reader, writer)
                if request.method == "GET":
                    self.checks.append(request)
                    self.checked.set()
                    await answer(b"{}", status=self.health_status)(exchange)
                else:
                    self.requests.append(request)
                    await self.behaviours[min(len(self.requests), len(self.behaviours)) - 1](exchange)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    def close_connections(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    def endpoint(self, endpoint_id: str = "e1", **changes: object) -> Endpoint:
        values: dict[str, object] = {
            "endpoint_id": endpoint_id, "model": "m", "url": self.url, "upstream_model": "m", **changes,
        }  # fmt: skip
        return Endpoint(**values)  # type: ignore[arg-type]


@asynccontextmanager
async def upstream(*behaviours: Behaviour) -> AsyncIterator[Upstream]:
    """A server on a port of its own; without a behaviour it answers properly."""
    served = Upstream(list(behaviours) or [answer()])
    server = await asyncio.start_server(served.connected, "127.0.0.1", 0)
    served.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        yield served
    finally:
        server.close()
        served.close_connections()


def answer(body: bytes = ANSWER, status: int = 200, headers: bytes = b"") -> Behaviour:
    """A proper answer with a length."""

    async def behave(exchange: Exchange) -> None:
        head = b"HTTP/1.1 %d X\r\ncontent-type: application/json\r\ncontent-length: %d\r\n" % (status, len(body))
        await exchange.send(head + headers + b"\r\n" + body)

    return behave


def refusal(status: int, code: str) -> Behaviour:
    """An error object of OpenAI's."""
    return answer(b'{"error":{"message":"no","type":"server_error","param":null,"code":"%s"}}' % code.encode(), status)


def stream(
    *parts: bytes, end: Literal["whole", "cut", "open"] = "whole", pause: asyncio.Event | None = None
) -> Behaviour:
    """A chunked answer, then its end, or a cut of the connection, or nothing. Waits for `pause` before each part."""

    async def behave(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        for part in parts:
            if pause is not None:
                await pause.wait()
                pause.clear()
            await exchange.send(b"%x\r\n%s\r\n" % (len(part), part))
        if end == "whole":
            await exchange.send(b"0\r\n\r\n")
        elif end == "cut":
            exchange.writer.transport.abort()

    return behave


def cut_within_body(declared: int = 1000, status: int = 200) -> Behaviour:
    async def behave(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n{" % (status, declared))
        exchange.writer.close()

    return behave


async def hang(exchange: Exchange) -> None:
    """Takes the request and never answers."""
    await exchange.left()


async def close_unanswered(exchange: Exchange) -> None:
    """Takes the request and closes the connection."""
    exchange.writer.close()


async def reset_unanswered(exchange: Exchange) -> None:
    """Takes the request and resets the connection, as the kernel does for a process that was killed."""
    sock = exchange.writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    exchange.writer.transport.abort()


async def speak_garbage(exchange: Exchange) -> None:
    await exchange.send(b"SSH-2.0-OpenSSH_9.2\r\n")
    exchange.writer.close()


def refused_url() -> str:
    """An address at which nothing listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{sock.getsockname()[1]}/v1"


@contextmanager
def unaccepting_url() -> Iterator[str]:
    """An address at which connecting never ends: the listener's queue is full and nobody accepts."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fillers = []
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
            fillers.append(filler)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        finally:
            for filler in fillers:
                filler.close()


async def _read_request(reader: asyncio.StreamReader) -> Request | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.decode().split("\r\n")
    method, path, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
    return Request(method, path, headers, await reader.readexactly(int(headers.get("content-length", 0))))
