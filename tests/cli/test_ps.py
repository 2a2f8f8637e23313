"""`parkway ps`, with a supervisor that only knows what to say."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from parkway.cli.ps import readable_s
from parkway.launch.control import Control, ModelState, Overview
from parkway.store.home import Home
from tests.cli.conftest import Command

OVERVIEW = Overview(
    limit_bytes=6_400_000_000,
    used_bytes=1_200_000_000,
    models=[
        ModelState(
            name="qwen", state="ready", load="on_demand", memory_bytes=1_200_000_000, needs_bytes=1_500_000_000,
            since_s=61, requests=2, unloads_in_s=240,
        ),
        ModelState(name="big", state="given up", load="on_demand", since_s=5, reason="model 'big' does not fit"),
        ModelState(
            name="knowledge", state="ready", load="start", memory_bytes=610_000_000, since_s=9, requests=None
        ),
    ],
)  # fmt: skip


@pytest.fixture
def supervisor(home: Home) -> Iterator[None]:
    """Answers on the home's socket for the length of the test."""
    loop, listening, done = asyncio.new_event_loop(), threading.Event(), asyncio.Event()

    async def overview() -> Overview:
        return OVERVIEW

    async def wake(model: str) -> None:
        raise AssertionError(model)

    async def serve() -> None:
        control = Control(home, wake, overview)
        await control.start()
        listening.set()
        await done.wait()
        await control.close()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert listening.wait(30)
    yield
    loop.call_soon_threadsafe(done.set)
    thread.join(30)
    loop.close()


@pytest.mark.usefixtures("supervisor")
def test_a_table_for_people(parkway: Command) -> None:
    done = parkway("ps")
    assert done.out.splitlines() == [
        "name       state     since  memory  needs up to  requests  unloaded in",
        "qwen       ready     1 min  1.2 GB  1.5 GB              2  4 min",
        "big        given up  5 s    -       -                   0  -",
        "knowledge  ready     9 s    610 MB  -                   -  -",
    ]
    assert done.err.splitlines() == ["1.2 GB of 6.4 GB in use", "big: model 'big' does not fit"]


@pytest.mark.usefixtures("supervisor")
def test_json_for_programs(parkway: Command) -> None:
    shown = parkway("ps", "--json").json
    assert isinstance(shown, dict)
    assert shown["limit_bytes"] == 6_400_000_000
    assert [model["state"] for model in shown["models"]] == ["ready", "given up", "ready"]
    assert shown["models"][0]["unloads_in_s"] == 240


def test_without_a_parkway(parkway: Command) -> None:
    done = parkway("ps")
    assert done.code == 3
    assert "no Parkway runs on this home" in done.err


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.4, "0 s"), (59, "59 s"), (60, "1 min"), (7300, "2 h"), (9e5, "10 d")]
)
def test_lengths_of_time(seconds: float, shown: str) -> None:
    assert readable_s(seconds) == shown
