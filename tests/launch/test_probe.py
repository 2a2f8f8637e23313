"""Asking a gateway whether it is ready: every answer, and none."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from parkway.launch.probe import Activity, Readiness, activity, answers, readiness


@asynccontextmanager
async def answering(answer: bytes) -> AsyncIterator[int]:
    """A server that answers every request with these bytes; its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert (await reader.readuntil(b"\r\n\r\n")).startswith((b"GET /readyz ", b"GET /healthz ", b"GET /metrics "))
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b'HTTP/1.1 200 OK\r\n\r\n{"status": "ok", "reasons": []}', Readiness("ok")),
        (b'HTTP/1.1 503 No\r\n\r\n{"status": "not ready", "reasons": ["r"]}', Readiness("not ready", ["r"])),
        (b"HTTP/1.1 200 OK\r\n\r\n<html>", None),
        (b"", None),
    ],
)
async def test_what_it_answers(answer: bytes, expected: Readiness | None) -> None:
    async with answering(answer) as port:
        assert await readiness("127.0.0.1", port, timeout_s=30) == expected


async def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    assert await readiness("127.0.0.1", port, timeout_s=30) is None


async def test_somebody_who_never_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert await readiness("127.0.0.1", silent.getsockname()[1], timeout_s=0.1) is None


@pytest.mark.parametrize(("answer", "alive"), [(b"HTTP/1.1 503 No\r\n\r\n", True), (b"", False), (b"SSH-2.0", False)])
async def test_any_answer_is_a_sign_of_life(answer: bytes, alive: bool) -> None:
    async with answering(answer) as port:
        assert await answers("127.0.0.1", port, timeout_s=30) is alive


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        (
            b'parkway_engine_running{model="m"} 2.0\nparkway_engine_waiting{model="m"} 1.0\n'
            b'parkway_engine_steps_total{model="m"} 1.5e+03\n',
            Activity(requests=3, steps=1500),
        ),
        (b'parkway_engine_waiting{model="m"} 0.0\nparkway_engine_steps_total{model="m"} 7.0\n', Activity(0, 7)),
        (b"<html>", None),
    ],
)
async def test_what_an_engine_is_doing(page: bytes, expected: Activity | None) -> None:
    async with answering(b"HTTP/1.1 200 OK\r\n\r\n" + page) as port:
        assert await activity("127.0.0.1", port, "token", timeout_s=30) == expected
