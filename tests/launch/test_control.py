"""The supervisor's socket: who may open it, what it answers, and what becomes of who leaves."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from parkway.core.errors import KnowledgeUnavailable, NoEndpoint, StartupError
from parkway.core.knowledge import NewCollection
from parkway.launch import control
from parkway.launch.control import Control, ModelState, Overview
from parkway.store.home import Home

OVERVIEW = Overview(limit_bytes=7, used_bytes=3, models=[ModelState(name="m", state="asleep", load="on_demand")])


class Supervisor:
    """Loads nothing: keeps who asked, and answers when it is told to."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.left = 0
        self.go = asyncio.Event()
        self.error: NoEndpoint | None = None

    async def wake(self, model: str) -> None:
        self.asked.append(model)
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.left += 1
            raise
        if self.error is not None:
            raise self.error

    async def overview(self) -> Overview:
        return OVERVIEW


@pytest.fixture(params=["short", "long"])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Home:
    """A home, once with a path that is longer than a socket's may be."""
    return Home.open(tmp_path / ("home" if request.param == "short" else "h" * 120))


@pytest.fixture
async def supervisor(home: Home) -> AsyncIterator[Supervisor]:
    supervisor = Supervisor()
    listening = Control(home, supervisor.wake, supervisor.overview)
    await listening.start()
    yield supervisor
    await listening.close()
    assert not (home.path / "control.sock").exists()


async def _until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - what is waited for is a plain attribute
            await asyncio.sleep(0.005)


async def test_only_the_owner_may_open_it(home: Home, supervisor: Supervisor) -> None:
    assert (home.path / "control.sock").stat().st_mode & 0o777 == 0o600


async def test_who_asks_waits_until_the_model_is_ready(home: Home, supervisor: Supervisor) -> None:
    async with asyncio.TaskGroup() as group:
        asking = group.create_task(control.wake(home, "m"))
        await _until(lambda: supervisor.asked)
        assert not asking.done()
        supervisor.go.set()
    assert supervisor.asked == ["m"]


async def test_why_it_cannot_be_loaded_comes_back(home: Home, supervisor: Supervisor) -> None:
    supervisor.error = NoEndpoint("does not fit", retry_after_s=12)
    supervisor.go.set()
    with pytest.raises(NoEndpoint, match="does not fit") as caught:
        await control.wake(home, "m")
    assert caught.value.retry_after_s == 12


async def test_who_leaves_takes_the_wish_back(home: Home, supervisor: Supervisor) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await control.wake(home, "m")
    await _until(lambda: supervisor.left == 1)


async def test_the_overview(home: Home, supervisor: Supervisor) -> None:
    assert await asyncio.to_thread(control.overview, home) == OVERVIEW


@pytest.mark.parametrize("line", [b"{}\n", b"no JSON\n", b'{"ask": "stop"}\n', b"x" * (2 << 20), b""])
async def test_what_is_no_question_gets_no_answer_and_does_no_harm(
    line: bytes, supervisor: Supervisor, home: Home
) -> None:
    with control._short(home.path / "control.sock") as path:  # pyright: ignore
        reader, writer = await asyncio.open_unix_connection(path)
    writer.write(line)
    writer.write_eof()
    with contextlib.suppress(ConnectionError):  # what was not read is in the way of a quiet end
        assert await reader.read() == b""
    writer.close()
    assert await asyncio.to_thread(control.overview, home) == OVERVIEW


async def test_what_a_killed_one_has_left_is_no_hindrance(home: Home) -> None:
    supervisor = Supervisor()
    with control._short(home.path / "control.sock") as path:  # pyright: ignore
        left = await asyncio.start_unix_server(lambda *_: None, path)
    left.close()
    with pytest.raises(NoEndpoint, match="nobody is there who could load it") as caught:
        await control.wake(home, "m")
    assert caught.value.retry_after_s
    assert await asyncio.to_thread(control.overview, home) is None
    listening = Control(home, supervisor.wake, supervisor.overview)
    await listening.start()
    assert await asyncio.to_thread(control.overview, home) == OVERVIEW
    await listening.close()


class Owners:
    """Owns nothing: keeps what it was asked for, and refuses a path that is not there."""

    def __init__(self) -> None:
        self.asked: list[object] = []

    async def ready(self) -> None:
        self.asked.append("ready")

    async def add(self, collection: str, new: NewCollection) -> None:
        self.asked.append((collection, *new.paths, *new.metadata.items()))
        if "/nowhere" in new.paths:
            raise StartupError("there is nothing at /nowhere")


async def test_owners_are_asked_for_and_given_paths(home: Home) -> None:
    supervisor, owners = Supervisor(), Owners()
    listening = Control(home, supervisor.wake, supervisor.overview, owners=owners)
    await listening.start()
    await control.own(home)
    await asyncio.to_thread(control.add_paths, home, "docs", [Path("/a b"), Path("/c\nd")], {"year": 2026})
    with pytest.raises(StartupError, match="nothing at /nowhere"):
        await asyncio.to_thread(control.add_paths, home, "docs", [Path("/nowhere")], {})
    await listening.close()
    assert owners.asked == ["ready", ("docs", "/a b", "/c\nd", ("year", 2026)), ("docs", "/nowhere")]


async def test_without_a_supervisor_nobody_owns_anything(home: Home) -> None:
    with pytest.raises(KnowledgeUnavailable, match="parkway up"):
        await control.own(home)
    with pytest.raises(StartupError, match="no Parkway runs"):
        await asyncio.to_thread(control.add_paths, home, "docs", [Path("/a")], {})
