"""What is left of a model's throughput when more is asked than it can do: with admission, and without.

The endpoint has a fixed number of slots. Beyond them it does not refuse: all its answers take longer, and by more than
the queue in it explains, as with a server that runs out of memory or swaps. Clients come at random times, whatever
became of those before (an open loop), and leave after 2.5 seconds. Goodput is what was answered within that time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import tempfile
import time
from pathlib import Path

import aiohttp
from aiohttp import web

from tests.running import Parkway

SLOTS = 16
SERVICE_S = 0.25
CAPACITY_PER_S = SLOTS / SERVICE_S
DEADLINE_S = 2.5
LOADS = (0.5, 1.0, 1.5, 2.0, 3.0)
ANSWER = {
    "id": "chatcmpl-static",
    "object": "chat.completion",
    "created": 1,
    "model": "static",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "yes"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 12, "completion_tokens": 8, "total_tokens": 20},
}
REQUEST = {"model": "static", "messages": [{"role": "user", "content": "Is it?"}]}


class Endpoint:
    """An OpenAI-compatible server whose latency collapses beyond its slots."""

    def __init__(self) -> None:
        self._running = 0
        self._runner = web.ServerRunner(web.Server(self._answer, handler_cancellation=True), access_log=None)

    async def start(self) -> str:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0][:2]
        return f"http://{host}:{port}/v1"

    async def stop(self) -> None:
        await self._runner.cleanup()

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        if request.method == "GET":
            return web.json_response({"data": []})
        await request.read()
        self._running += 1
        try:
            over = max(1.0, self._running / SLOTS)
            await asyncio.sleep(SERVICE_S * random.uniform(0.5, 1.5) * over * (1 + (over - 1)))
        finally:
            self._running -= 1
        return web.json_response(ANSWER)


async def offer(
    parkway: Parkway, http: aiohttp.ClientSession, rate_per_s: float, seconds: float
) -> tuple[float, float]:
    """Requests answered in time, and requests refused, each a second."""
    good = refused = 0
    headers = {
        "authorization": f"Bearer {parkway.key}",
        "content-type": "application/json",
        "x-parkway-timeout-s": str(DEADLINE_S),
    }
    body = json.dumps(REQUEST).encode()

    async def ask() -> None:
        nonlocal good, refused
        begun = time.monotonic()
        try:
            timeout = aiohttp.ClientTimeout(total=DEADLINE_S)
            async with http.post(
                f"{parkway.url}/v1/chat/completions", data=body, headers=headers, timeout=timeout
            ) as response:
                await response.read()
        except (TimeoutError, aiohttp.ClientError):
            return
        if time.monotonic() <= started + seconds:  # what comes later belongs to nobody's second
            good += response.status == 200 and time.monotonic() - begun <= DEADLINE_S
            refused += response.status == 503

    started = when = time.monotonic()
    async with asyncio.TaskGroup() as clients:
        while when < started + seconds:
            clients.create_task(ask())
            when += random.expovariate(rate_per_s)
            await asyncio.sleep(max(0.0, when - time.monotonic()))
    return good / seconds, refused / seconds


async def measure(name: str, admission: dict[str, object], seconds: float, folder: Path) -> list[float]:
    """Prints a line for each load; returns the goodput of each."""
    endpoint = Endpoint()
    settings = {
        "models": {"static": {"url": await endpoint.start(), "admission": admission}},
        "admission": {"enabled": bool(admission), "initial_concurrency": 32},
        "limits": {"rate_per_s": 1_000_000, "burst": 1_000_000},
    }
    found: list[float] = []
    parkway = await asyncio.to_thread(Parkway(folder, settings).__enter__)
    try:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
            for load in (0.3, 1.5):  # what has to be found out is found out here
                await offer(parkway, http, load * CAPACITY_PER_S, 2 * seconds)
            for load in LOADS:
                good, refused = await offer(parkway, http, load * CAPACITY_PER_S, seconds)
                found.append(good)
                print(f"{name:34s} {load:4.1f} {good:10.0f}/s {refused:10.0f}/s", flush=True)
    finally:
        await asyncio.to_thread(parkway.__exit__, None, None, None)
        await endpoint.stop()
    return found


async def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--seconds", type=float, default=10, help="of each load")
    arguments.add_argument("--only", help="a word of the one way to be measured")
    options = arguments.parse_args()
    print(f"{SLOTS} slots, {CAPACITY_PER_S:.0f} requests/s can be answered, each within {DEADLINE_S:g} s\n")
    print(f"{'':34s} load    goodput      refused")
    ways: dict[str, dict[str, object]] = {
        "without admission": {},
        "with, 16 slots configured": {"max_concurrency": SLOTS},
        "with, the slots found out": {"max_queue_requests": 1024},
    }
    with tempfile.TemporaryDirectory(prefix="parkway-bench-") as name:
        for number, (way, admission) in enumerate(ways.items()):
            if options.only and options.only not in way:
                continue
            goodput = await measure(way, admission, options.seconds, Path(name) / str(number))
            kept = goodput[-1] / max(goodput)
            print(f"{way}: {kept:.0%} of its peak is left at 3 times the capacity (asked for: over 90 %)\n")


if __name__ == "__main__":
    asyncio.run(main())
