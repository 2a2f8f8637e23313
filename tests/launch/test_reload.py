"""Gateways that are replaced, and several of them: nothing that a client asks for is lost."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.launch.load import SteadyModel, load
from tests.launch.stage import SlowModel, Up, parkway, processes_of, up, wait_until

LIMITS = {"rate_per_s": 100_000, "burst": 100_000}


@pytest.fixture
async def steady() -> AsyncIterator[str]:
    model = SteadyModel(pause_s=0.03)
    yield await model.start()
    await model.stop()


@pytest.fixture
def slow() -> Iterator[SlowModel]:
    model = SlowModel()
    yield model
    model.close()


def settings(url: str, **gateway: Any) -> dict[str, Any]:
    return {"models": {"steady": url}, "limits": LIMITS, "gateway": {"drain_s": 10, **gateway}, "pulled_models": False}


def gateways(started: Up) -> set[int]:
    found = set[int]()
    for pid in processes_of(started.home):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"gateway" in words and pid != started.process.pid:
            found.add(pid)
    return found


async def test_reloads_under_load_lose_no_request_and_cut_no_stream(tmp_path: Path, steady: str) -> None:
    with up(tmp_path / "home", settings(steady, workers=2)) as started:
        await asyncio.to_thread(started.ready)
        first = gateways(started)
        assert len(first) == 2
        counted: list[float] = []
        async with load(started.url, started.key(), "steady", plain=4, streamed=4, pause_s=0.01) as result:
            for round_number in range(3):
                before = result.count
                if round_number == 1:
                    started.process.send_signal(signal.SIGHUP)
                    await asyncio.to_thread(
                        wait_until, lambda: started.told().count("the gateway is replaced") == 2, "the second reload"
                    )
                else:
                    done = await asyncio.to_thread(parkway, started.home, "reload")
                    assert (done.returncode, done.stdout) == (0, "reloaded\n"), done.stderr
                await asyncio.to_thread(wait_until, lambda before=before: result.count > before + 40, "more answers")
                counted.append(await asyncio.to_thread(_requests, started))
            await asyncio.to_thread(wait_until, lambda: len(gateways(started)) == 2, "the end of the old gateways")
        assert result.failures == []
        assert result.closed > 0, "clients were told to open their next connection elsewhere"
        assert not first & gateways(started)
        # Whichever is asked shows the sum of all, those that have ended too.
        await asyncio.to_thread(
            wait_until, lambda: _requests(started) == len(result.answered), "all requests to be counted"
        )
        assert counted == sorted(counted), "a counter never goes back"
        assert "killed" not in started.told()


async def test_a_gateway_that_is_killed_takes_no_other_with_it(tmp_path: Path, steady: str) -> None:
    with up(tmp_path / "home", settings(steady, workers=2)) as started:
        await asyncio.to_thread(started.ready)
        victim = min(gateways(started))
        async with load(started.url, started.key(), "steady", plain=6, streamed=0, pause_s=0.01) as result:
            await asyncio.to_thread(wait_until, lambda: result.count > 50, "answers")
            os.kill(victim, signal.SIGKILL)
            await asyncio.to_thread(
                wait_until, lambda: len(gateways(started)) == 2 and victim not in gateways(started), "a new gateway"
            )
            before = result.count
            await asyncio.to_thread(wait_until, lambda: result.count > before + 50, "answers after it")
        assert len(result.failures) <= 6, "only what was under way on its connections"


async def test_a_gateway_that_cannot_start_leaves_the_old_one(tmp_path: Path, steady: str) -> None:
    with up(tmp_path / "home", settings(steady)) as started:
        await asyncio.to_thread(started.ready)
        before = gateways(started)
        (started.home / "running.yaml").write_text("{ this is no configuration")
        done = await asyncio.to_thread(parkway, started.home, "reload")
        assert done.returncode == 3
        assert "the old one goes on" in done.stderr
        assert started.request("GET", "/v1/models").status == 200
        assert gateways(started) == before


def test_reload_without_a_parkway(tmp_path: Path) -> None:
    done = parkway(tmp_path / "home", "reload")
    assert done.returncode == 3
    assert "no Parkway runs" in done.stderr


async def test_an_old_gateway_that_is_told_to_stop_finishes_its_streams(tmp_path: Path, slow: SlowModel) -> None:
    with up(tmp_path / "home", settings(slow.url)) as started:
        await asyncio.to_thread(started.ready)
        response = await asyncio.to_thread(started.chat, "steady")
        assert b"one" in response.readline()
        await asyncio.to_thread(parkway, started.home, "reload")
        assert len(gateways(started)) == 2
        started.process.terminate()
        await asyncio.to_thread(wait_until, lambda: "stopping" in started.told(), "the drain")
        slow.go.set()
        assert b"[DONE]" in await asyncio.to_thread(response.read)
        assert await asyncio.to_thread(started.wait) == 0
        assert "killed" not in started.told()


def _requests(started: Up) -> float:
    text = started.request("GET", "/metrics").read().decode()
    lines = [line for line in text.splitlines() if line.startswith("parkway_requests_total{")]
    return sum(float(line.rpartition(" ")[2]) for line in lines)
