"""A real gateway on a real socket, in front of a scripted endpoint."""

from __future__ import annotations

import asyncio
import shutil
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import uvicorn
import yaml
from sqlalchemy import select

from parkway.core.tasks import Tasks
from parkway.gateway.protocol import bounded
from parkway.gateway.readiness import Readiness
from parkway.launch.gateway import assemble
from parkway.launch.settings import Settings
from parkway.pipeline.grounds import Searching
from parkway.policy.keys import KeyStore
from parkway.router.endpoint import Endpoint
from parkway.router.registry import Registry
from parkway.store import schema
from parkway.store.sql import Database
from tests.gateway.upstream import Upstream


@dataclass
class Gate:
    """A running gateway and what stands around it."""

    url: str
    key: str
    database: Database
    upstream: Upstream
    upstream_url: str
    registry: Registry
    readiness: Readiness
    http: aiohttp.ClientSession

    def headers(self, key: str | None = None) -> dict[str, str]:
        return {"authorization": f"Bearer {key or self.key}"}

    async def post(self, path: str, body: object, key: str | None = None, **headers: str) -> aiohttp.ClientResponse:
        """Posts JSON and reads the whole answer."""
        response = await self.http.post(self.url + path, json=body, headers={**self.headers(key), **headers})
        await response.read()
        return response

    async def get(self, path: str, key: str | None = None) -> aiohttp.ClientResponse:
        response = await self.http.get(self.url + path, headers=self.headers(key))
        await response.read()
        return response

    def new_key(self, name: str) -> str:
        return KeyStore(self.database).create(name)[1]

    def logged(self) -> list[dict[str, object]]:
        """The request log, oldest first."""
        with self.database.read() as connection:
            rows = connection.execute(select(schema.requests).order_by(schema.requests.c.request_id))
            return [dict(row) for row in rows.mappings()]


class PromptServer(uvicorn.Server):
    """uvicorn, which ends when it is told to, where its own looks ten times a second, and waits a tenth more: in a
    thousand tests that is minutes."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.stop = asyncio.Event()

    async def main_loop(self) -> None:
        await self.on_tick(0)
        await self.stop.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        for listener in sockets or []:
            listener.close()
        for connection in list(self.server_state.connections):
            connection.transport.abort()  # pyright: ignore[reportAttributeAccessIssue, reportOptionalMemberAccess]


StartGate = Callable[..., AbstractAsyncContextManager[Gate]]


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with its tables made, to be copied: making them is what would take the longest in most tests."""
    path = tmp_path_factory.mktemp("store") / "parkway.db"
    database = Database.open(f"sqlite:///{path}")
    database.migrate()
    database.close()  # which leaves everything in the one file
    return path


@pytest.fixture
def start_gate(tmp_path: Path, empty_store: Path) -> StartGate:
    """Starts a gateway with the settings that a test needs."""
    shutil.copy(empty_store, tmp_path / "parkway.db")
    return starter(tmp_path)


def starter(tmp_path: Path, *, no_delay: bool = False) -> StartGate:
    """`start_gate` for fixtures of another scope; the database is in `tmp_path`.

    Args:
        no_delay: Answers in under 1 ms and not in 40: asyncio, unlike uvloop, leaves Nagle's algorithm on here.
    """

    @asynccontextmanager
    async def start(
        settings: Settings, source: Path | None = None, knowledge: Searching | None = None
    ) -> AsyncIterator[Gate]:
        database = Database.open(f"sqlite:///{tmp_path}/parkway.db")
        database.migrate()
        upstream = Upstream()
        upstream_url = await upstream.start()
        registry = Registry(database)
        registry.put(Endpoint(endpoint_id="echo-0", model="echo", url=upstream_url, upstream_model="echo"))
        _, key = KeyStore(database).create("test")
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, int(no_delay))
        async with (
            assemble(settings, database, source=source, look_s=0.02, searching=knowledge) as (app, readiness),
            aiohttp.ClientSession() as http,
            Tasks("test") as tasks,
        ):
            config = uvicorn.Config(app, http=bounded(app), ws="none", lifespan="off", log_config=None)
            server = PromptServer(config)
            serving = tasks.start(server._serve(sockets=[listener]), name="uvicorn")
            yield Gate(
                url=f"http://127.0.0.1:{listener.getsockname()[1]}",
                key=key,
                database=database,
                upstream=upstream,
                upstream_url=upstream_url,
                registry=registry,
                readiness=readiness,
                http=http,
            )
            server.stop.set()
            await serving
        await upstream.stop()
        database.close()

    return start


@pytest.fixture
async def gate(start_gate: StartGate) -> AsyncIterator[Gate]:
    """A gateway with the default settings and no models of its own."""
    async with start_gate(Settings.model_validate({"models": {}})) as gate:
        yield gate


class File:
    """A configuration that a test edits."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.write()

    def write(self, **sections: Any) -> None:
        """Replaces the whole file, as an editor does: under another name, then renamed."""
        fresh = self.path.with_suffix(".tmp")
        fresh.write_text(yaml.safe_dump({"models": {}, **sections}, sort_keys=False), encoding="utf-8")
        fresh.replace(self.path)


@pytest.fixture
def file(tmp_path: Path) -> File:
    return File(tmp_path / "parkway.yaml")


@pytest.fixture
async def live(start_gate: StartGate, file: File) -> AsyncIterator[Gate]:
    """A gateway that follows `file`."""
    async with start_gate(Settings.find(file.path), file.path) as gate:
        yield gate
