"""Does the gateway's memory stay where it is: an hour of random load with faults and attacks; fails if memory grows."""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import tempfile
import time
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from bench.gateway_vs_peers import EVERYTHING, PRICE, upstream
from bench.peers.growth import Growth
from bench.peers.keys import mint
from tests.chaos.faults import Connection, FaultyUpstream, faulty, well
from tests.chaos.test_faults import CASES
from tests.running import Parkway, children, resident_mib

GROWTH = 1.05  # the most
EVENTS = 40  # of one stream
KEYS = 200
FLAKY = 3  # endpoints that fail, of one model
BODY_BYTES = 64 * 1024  # the most that the gateway takes
FAULTS = [case.fault for case in CASES if not case.tls]
WORDS = ("list", "copy", "find", "count", "archive", "unpack", "folder", "file", "line", "user", "disk", "port")

# What a client does, how often, and what may come of it. Faults come out in every way but one: as an error of ours.
KINDS: dict[str, tuple[int, tuple[int, ...]]] = {
    "chat": (45, (200,)),
    "stream": (15, (200,)),
    "left": (10, (200,)),  # a stream, after its first events
    "message": (5, (200,)),
    "fault": (15, (200, 429, 502, 503, 504)),
    "wrong key": (5, (401,)),
    "too large": (2, (413,)),
    "not understood": (3, (400,)),
}


@dataclass(slots=True)
class Counts:
    """What became of the requests: how many of which kind ended with which status."""

    ended: Counter[tuple[str, int]] = field(default_factory=Counter[tuple[str, int]])

    @property
    def requests(self) -> int:
        return self.ended.total()

    def __str__(self) -> str:
        """The requests that were not answered, by kind."""
        failed = {key: count for key, count in sorted(self.ended.items()) if key[1] != 200}
        return "  ".join(f"{kind} {status}: {count:,}" for (kind, status), count in failed.items())


class Client:
    """Sends one random request after the other, `rate` a second."""

    def __init__(self, url: str, keys: list[str], rate: float, counts: Counts, seed: int) -> None:
        self._url = url
        self._keys = keys
        self._rate = rate
        self._counts = counts
        self._random = random.Random(seed)

    async def run(self) -> None:
        """Until cancelled. Raises `RuntimeError` at an answer that should not be."""
        kinds, weights = list(KINDS), [weight for weight, _ in KINDS.values()]
        async with aiohttp.ClientSession(self._url, timeout=aiohttp.ClientTimeout(total=60)) as session:
            due = time.monotonic()
            while True:
                kind = self._random.choices(kinds, weights)[0]
                status = await self._ask(session, kind)
                if status not in KINDS[kind][1]:
                    raise RuntimeError(f"{kind}: {status}")
                self._counts.ended[kind, status] += 1
                due = max(due + self._random.expovariate(self._rate), time.monotonic() - 1)
                await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def _ask(self, session: aiohttp.ClientSession, kind: str) -> int:
        key = f"pk-wrong{self._random.randrange(10**7):07d}-{'x' * 43}" if kind == "wrong key" else self._key()
        headers = {"authorization": f"Bearer {key}", "content-type": "application/json", "x-parkway-timeout-s": "2"}
        path = "/v1/messages" if kind == "message" else "/v1/chat/completions"
        async with session.post(path, data=self._body(kind), headers=headers) as response:
            if kind == "left":
                await response.content.readany()
            else:
                await response.read()
            return response.status

    def _key(self) -> str:
        return self._random.choice(self._keys)

    def _body(self, kind: str) -> bytes:
        if kind == "not understood":
            return self._random.choice((b"{", b"[]", b'{"model": "static"}', b'{"model": "static", "messages": 1}'))
        words = " ".join(self._random.choices(WORDS, k=self._random.randint(1, 200)))
        if self._random.random() < 0.1:
            words += f" and write to {self._random.choice(WORDS)}{self._random.randrange(1000)}@example.com"
        if kind == "too large":
            words *= BODY_BYTES // len(words) + 1
        streamed = kind in ("stream", "left") or (kind in ("message", "fault") and self._random.random() < 0.5)
        return json.dumps({
            "model": "flaky" if kind == "fault" else "static",
            "stream": streamed,
            "max_tokens": self._random.randint(1, 500),
            "messages": [{"role": "user", "content": words}],
        }).encode()  # fmt: skip


class Flaky:
    """Endpoints that meet a request with any fault of `tests/chaos`, or well, as often as not."""

    def __init__(self) -> None:
        self._random = random.Random(0)
        self.served: list[FaultyUpstream] = []

    async def answer(self, connection: Connection) -> None:
        for each in self.served:
            each.requests.clear()  # which it keeps for tests
        await (well if self._random.random() < 0.5 else self._random.choice(FAULTS))(connection)


async def soak(options: argparse.Namespace, folder: Path, static: int) -> Growth:
    """The gateway's memory over time, under load."""
    counts, growth, flaky = Counts(), Growth(), Flaky()
    keys = mint(folder / "home", KEYS)
    async with AsyncExitStack() as stack:
        flaky.served = [await stack.enter_async_context(faulty(flaky.answer)) for _ in range(FLAKY)]
        settings = {
            **EVERYTHING,
            "bounds": {"max_body_bytes": BODY_BYTES},
            "models": {
                "static": {"url": f"http://127.0.0.1:{static}/v1", "price": PRICE},
                "flaky": {"endpoints": [{"url": each.url} for each in flaky.served], "price": PRICE},
            },
        }
        running = Parkway(folder / "home", settings)
        parkway = await asyncio.to_thread(running.__enter__)
        stack.push_async_callback(asyncio.to_thread, running.__exit__, None, None, None)
        gateway = parkway.process("gateway")
        # One that fails ends them all, and with them the run.
        group = await stack.enter_async_context(asyncio.TaskGroup())
        rate = options.rate / options.clients
        clients = [
            group.create_task(Client(parkway.url, keys, rate, counts, seed).run()) for seed in range(options.clients)
        ]
        last = (time.monotonic(), 0)

        def said() -> str:
            nonlocal last
            before, (at, requests) = last, (time.monotonic(), counts.requests)
            last = at, requests
            others = sum(resident_mib(pid) for pid in children(parkway.up.pid) if pid != gateway)
            return f"{others:7.1f} beside it {(requests - before[1]) / (at - before[0]):6.0f} requests/s  {counts}"

        def read() -> float:
            return sum(resident_mib(pid) for pid in (gateway, *children(gateway)))

        await growth.watch(options.minutes, 30, read, said)
        for client in clients:
            client.cancel()
    print(f"{counts.requests:,} requests")
    return growth


def main() -> None:
    """Starts Parkway, loads its gateway, and compares its memory late with its memory early."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--minutes", type=float, default=60)
    arguments.add_argument("--rate", type=float, default=300, help="requests a second, of all clients")
    arguments.add_argument("--clients", type=int, default=32)
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="parkway-bench-") as name, upstream(EVENTS) as (static, _):
        growth = asyncio.run(soak(options, Path(name), static))
    growth.judge(GROWTH)


if __name__ == "__main__":
    main()
