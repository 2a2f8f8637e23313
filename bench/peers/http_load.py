"""A client for gateways under test: raw sockets, so that it costs little beside what it measures."""

from __future__ import annotations

import asyncio
import ctypes
import hashlib
import os
import struct
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field


@dataclass(slots=True)
class Connection:
    """One keep-alive connection that reads whole answers, and streams to their end."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @classmethod
    async def open(cls, port: int) -> Connection:
        return cls(*await asyncio.open_connection("127.0.0.1", port, limit=1 << 20))

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """One exchange: status and body, chunked or not."""
        self.writer.write(request)
        head = await self.reader.readuntil(b"\r\n\r\n")
        status = int(head.split(b" ", 2)[1])
        lowered = head.lower()
        if b"transfer-encoding: chunked" not in lowered:
            length = int(lowered.partition(b"content-length: ")[2].partition(b"\r\n")[0])
            return status, await self.reader.readexactly(length)
        parts: list[bytes] = []
        while size := int(await self.reader.readuntil(b"\r\n"), 16):
            parts.append((await self.reader.readexactly(size + 2))[:-2])
        await self.reader.readexactly(2)
        return status, b"".join(parts)

    def close(self) -> None:
        self.writer.close()


def post(path: str, key: str, body: bytes) -> bytes:
    """A request as bytes."""
    return (
        f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
        f"authorization: Bearer {key}\r\ncontent-length: {len(body)}\r\n\r\n"
    ).encode() + body


@dataclass(slots=True)
class Paced:
    """What came of requests that were sent at a fixed rate, whether or not those before had been answered.

    Fields:
        seconds: of each, from the moment at which it was due, so that waiting for a connection counts.
    """

    seconds: list[float] = field(default_factory=list[float])
    failures: int = 0


async def paced(port: int, request: bytes, rate: float, duration_s: float, connections: int = 64) -> Paced:
    """Open loop: `rate` requests a second for `duration_s`."""
    free = deque([await Connection.open(port) for _ in range(connections)])
    waiting: deque[float] = deque()
    found = Paced()
    tasks: set[asyncio.Task[None]] = set()

    async def one(connection: Connection, due: float) -> None:
        while True:
            status, _ = await connection.ask(request)
            found.seconds.append(time.perf_counter() - due)
            found.failures += status != 200
            if not waiting:
                break
            due = waiting.popleft()
        free.append(connection)

    async for due in _ticks(rate, int(rate * duration_s)):
        if not free:
            waiting.append(due)
            continue
        task = asyncio.ensure_future(one(free.popleft(), due))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)
    for connection in free:
        connection.close()
    return found


async def _ticks(rate: float, count: int) -> AsyncIterator[float]:
    """`count` moments at an even `rate`, each as soon as it is due.

    A timer of the kernel wakes the client up. An event loop's own timers are as coarse as a millisecond, and a client
    that spins until the next moment takes the core that it shares with the endpoint away from it.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    every_ns = int(1e9 / rate)
    timer = libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
    if timer < 0:
        raise OSError(ctypes.get_errno(), "timerfd_create")
    rung, loop = asyncio.Event(), asyncio.get_running_loop()
    try:
        loop.add_reader(timer, rung.set)
        start = time.perf_counter()  # which is CLOCK_MONOTONIC too
        interval = (*divmod(every_ns, 10**9), *divmod(every_ns, 10**9))
        if libc.timerfd_settime(timer, 0, (ctypes.c_long * 4)(*interval), None) < 0:
            raise OSError(ctypes.get_errno(), "timerfd_settime")
        done = 0
        while done < count:
            await rung.wait()
            rung.clear()
            (rings,) = struct.unpack("q", os.read(timer, 8))  # since it was read last
            for number in range(done, min(done + rings, count)):
                yield start + (number + 1) * every_ns / 1e9
            done += rings
    finally:
        loop.remove_reader(timer)
        os.close(timer)


async def closed(port: int, requests: Iterable[bytes], connections: int = 32) -> None:
    """Closed loop: each connection sends the next one once it has been answered.

    Raises:
        RuntimeError: An answer was not a 200.
    """
    left = iter(requests)

    async def sender() -> None:
        connection = await Connection.open(port)
        for request in left:
            status, body = await connection.ask(request)
            if status != 200:
                raise RuntimeError(f"{status} {body[:500].decode(errors='replace')}")
        connection.close()

    async with asyncio.TaskGroup() as group:
        for _ in range(connections):
            group.create_task(sender())


async def streams(port: int, request: bytes, count: int, at_once: int) -> list[str]:
    """Digests of the bodies of `count` streams, `at_once` at a time."""
    digests: list[str] = []
    left = iter(range(count))

    async def reader() -> None:
        connection = await Connection.open(port)
        for _ in left:
            status, body = await connection.ask(request)
            digests.append(hashlib.sha256(body).hexdigest() if status == 200 else f"status {status}")
        connection.close()

    await asyncio.gather(*(reader() for _ in range(at_once)))
    return digests
