"""What is written to a client's socket, and in how many pieces."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.server import ServerState

from parkway.gateway.config import GatewayConfig, InForce
from parkway.gateway.door import Door
from parkway.gateway.protocol import bounded


class Wire:
    """A transport that keeps what is written to it."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.closed = asyncio.Event()

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def close(self) -> None:
        self.closed.set()

    def is_closing(self) -> bool:
        return self.closed.is_set()

    def get_extra_info(self, name: str) -> Any:
        return None

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


def answering(*pieces: bytes, length: int | None, reads: bool = False, fails: bool = False) -> ASGIApp:
    """An application that answers with `pieces`."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if reads:
            await receive()
        headers = [] if length is None else [(b"content-length", str(length).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if fails:
            raise ValueError("broken")
        for piece in pieces:
            message: Message = {"type": "http.response.body", "body": piece, "more_body": True}
            await send(message)
        await send({"type": "http.response.body", "body": b""})

    return app


async def asked(app: ASGIApp, request: bytes) -> Wire:
    """What is written in answer to `request`, whose answer ends the connection."""
    wire = Wire()
    config = uvicorn.Config(app, ws="none", lifespan="off", log_config=None)
    config.load()
    loop = asyncio.get_running_loop()
    door = Door(app, InForce(GatewayConfig()), draining=lambda: False, note=lambda _error, _asked: None)
    protocol = bounded(door)(config=config, server_state=ServerState(), app_state={}, _loop=loop)
    protocol.connection_made(wire)
    protocol.data_received(request)
    await asyncio.wait_for(wire.closed.wait(), 10)
    protocol.connection_lost(None)
    return wire


def get(method: str = "GET", *headers: str) -> bytes:
    return "\r\n".join([f"{method} / HTTP/1.1", "connection: close", *headers, "", ""]).encode()


async def test_a_head_is_written_together_with_the_beginning_of_its_body() -> None:
    wire = await asked(answering(b"one", b"two", length=6), get())
    assert wire.written[0].startswith(b"HTTP/1.1 200 OK\r\n")
    assert wire.written[0].endswith(b"\r\n\r\none")
    assert b"".join(wire.written[1:]) == b"two"


async def test_so_it_is_where_the_length_is_not_known() -> None:
    wire = await asked(answering(b"one", b"two", length=None), get())
    assert wire.written[0].endswith(b"\r\n\r\n3\r\none\r\n")
    assert b"".join(wire.written[1:]) == b"3\r\ntwo\r\n0\r\n\r\n"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_an_answer_without_a_body_is_written_all_the_same(method: str) -> None:
    wire = await asked(answering(length=0), get(method))
    assert b"".join(wire.written).endswith(b"\r\n\r\n")


async def test_that_a_request_may_go_on_is_written_at_once() -> None:
    app = answering(b"one", length=3, reads=True)
    wire = await asked(app, get("POST", "expect: 100-continue", "content-length: 2") + b"{}")
    assert wire.written[0] == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert wire.written[1].endswith(b"\r\n\r\none")


async def test_of_an_answer_that_fails_behind_its_head_nothing_is_written() -> None:
    assert (await asked(answering(length=3, fails=True), get())).written == []
