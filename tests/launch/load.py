"""A steady load of plain and streamed requests from clients that keep their connections."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
from aiohttp import web

from tests.gateway.upstream import Upstream, chunk

EVENTS = 8


class SteadyModel(Upstream):
    """Answers at once, and streams `EVENTS` events with `pause_s` between them."""

    def __init__(self, pause_s: float) -> None:
        super().__init__()
        self._pause_s = pause_s
        self.script = self._answer

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = self.bodies.pop()
        self.headers.clear()
        self.bodies.append(body)
        if not body.get("stream"):
            return await self.echo(request)
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for number in range(EVENTS):
            await response.write(chunk(f"{number} "))
            await asyncio.sleep(self._pause_s)
        await response.write(chunk(finish="stop") + b"data: [DONE]\n\n")
        return response


@dataclass
class Load:
    """What came of the load.

    Attributes:
        answered: When each request that succeeded was sent, how many seconds its answer took, and whether it was
            streamed.
        failures: In words, each request that did not succeed or whose stream was cut.
        closed: Answers that said `connection: close`.
    """

    answered: list[tuple[float, float, bool]] = field(default_factory=list[tuple[float, float, bool]])
    failures: list[str] = field(default_factory=list[str])
    closed: int = 0
    connections: int = 0

    @property
    def count(self) -> int:
        return len(self.answered) + len(self.failures)


@asynccontextmanager
async def load(url: str, key: str, model: str, *, plain: int, streamed: int, pause_s: float) -> AsyncIterator[Load]:
    """So many clients, each with one connection and a request every `pause_s` after the answer before."""
    result = Load()
    done = asyncio.Event()

    async def client(stream: bool) -> None:
        trace = aiohttp.TraceConfig()

        async def connected(*_: object) -> None:
            result.connections += 1

        trace.on_connection_create_end.append(connected)
        async with aiohttp.ClientSession(trace_configs=[trace], headers={"authorization": f"Bearer {key}"}) as http:
            while not done.is_set():
                await ask(http, stream)
                await asyncio.sleep(pause_s)

    async def ask(http: aiohttp.ClientSession, stream: bool) -> None:
        body = {"model": model, "stream": stream, "messages": [{"role": "user", "content": "hello there"}]}
        sent = time.monotonic()
        try:
            async with http.post(f"{url}/v1/chat/completions", json=body) as response:
                content = await response.read()
                result.closed += response.headers.get("connection") == "close"
                if response.status != 200:
                    result.failures.append(f"{response.status} {content[:200]!r}")
                elif stream and (content.count(b"data:") != EVENTS + 2 or b"[DONE]" not in content):
                    result.failures.append(f"cut: {content[-200:]!r}")
                else:
                    result.answered.append((sent, time.monotonic() - sent, stream))
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            result.failures.append(repr(error))

    running = [asyncio.ensure_future(client(number < streamed)) for number in range(plain + streamed)]
    try:
        yield result
    finally:
        done.set()
        await asyncio.gather(*running)
