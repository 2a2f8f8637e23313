"""Prefix affinity: cache hits of two engines and the time to the first token, against least outstanding."""

from __future__ import annotations

import argparse
import asyncio
import random
import re
import statistics
import tempfile
import time
from pathlib import Path

import aiohttp

from tests.running import Parkway

SUBJECTS = ("archives", "containers", "disks", "fonts", "graphs", "hosts", "images", "jobs", "keys", "logs")


def document(number: int, words: int) -> str:
    """A long text that all conversations about one subject begin with."""
    chosen = random.Random(number)
    return f"Notes {number}: " + " ".join(chosen.choice(SUBJECTS) for _ in range(words))


async def ask(session: aiohttp.ClientSession, parkway: Parkway, messages: list[dict[str, str]]) -> tuple[float, str]:
    """Seconds to the first token, and the answer."""
    body = {"model": "park-mini", "messages": messages, "max_tokens": 12, "temperature": 0, "stream": True}
    started, first, said = time.monotonic(), 0.0, ""
    headers = {"authorization": f"Bearer {parkway.key}"}
    async with session.post(f"{parkway.url}/v1/chat/completions", json=body, headers=headers) as response:
        if response.status != 200:
            raise SystemExit(await response.text())
        async for line in response.content:
            if found := re.search(rb'"content":"((?:[^"\\]|\\.)+)"', line):
                first = first or time.monotonic() - started
                said += found.group(1).decode(errors="replace")
    return first or time.monotonic() - started, said


async def converse(
    session: aiohttp.ClientSession, parkway: Parkway, subject: int, number: int, turns: int, words: int
) -> list[float]:
    """One conversation; its times to the first token."""
    messages = [{"role": "system", "content": document(subject, words)}]
    times = []
    for turn in range(turns):
        messages.append({"role": "user", "content": f"{number}.{turn}: how do I list the {SUBJECTS[turn]}?"})
        seconds, said = await ask(session, parkway, messages)
        times.append(seconds)
        messages.append({"role": "assistant", "content": said or "-"})
    return times


async def cached_share(session: aiohttp.ClientSession, parkway: Parkway) -> tuple[int, int]:
    """Tokens of prompts, and those that the engines had in their caches, of both engines."""
    from parkway.router.registry import Registry
    from parkway.store.sql import Database

    database = Database.open(f"sqlite:///{parkway.home}/parkway.db")
    urls = [endpoint.url for endpoint in Registry(database).list()]
    database.close()
    prompts = cached = 0
    for url in urls:
        async with session.get(url.removesuffix("/v1") + "/metrics") as response:
            text = await response.text()
        for name, value in re.findall(
            r"^(parkway_engine_\w+?)(?:_total)?(?:\{[^}]*\})? ([\d.e+]+)$", text, re.MULTILINE
        ):
            prompts += int(float(value)) if name.endswith("prompt_tokens") else 0
            cached += int(float(value)) if name.endswith("cached_tokens") else 0
    return prompts, cached


async def measure(parkway: Parkway, options: argparse.Namespace) -> tuple[float, float]:
    """Share of prompt tokens found in a cache, and the median time to the first token of all but the first turns."""
    timeout = aiohttp.ClientTimeout(total=300)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        conversations = [
            converse(session, parkway, number % options.subjects, number, options.turns, options.words)
            for number in range(options.conversations)
        ]
        slots = asyncio.Semaphore(options.at_once)

        async def in_turn(conversation: object) -> list[float]:
            async with slots:
                return await conversation  # pyright: ignore[reportGeneralTypeIssues]

        times = await asyncio.gather(*[in_turn(each) for each in conversations])
        prompts, cached = await cached_share(session, parkway)
    return cached / max(1, prompts + cached), statistics.median(seconds for each in times for seconds in each[1:])


def main() -> None:
    """Runs the same conversations with each balancer over two engines of park-mini; prints ratios."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--conversations", type=int, default=24)
    arguments.add_argument("--subjects", type=int, default=8)
    arguments.add_argument("--turns", type=int, default=4)
    arguments.add_argument("--words", type=int, default=350)
    arguments.add_argument("--at-once", type=int, default=4)
    arguments.add_argument("--kv-tokens", type=int, default=0, help="cache of each engine in tokens; 0 is its default")
    options = arguments.parse_args()
    results: dict[str, tuple[float, float]] = {}
    with tempfile.TemporaryDirectory(prefix="parkway-bench-") as name:
        for balance in ("least_outstanding", "prefix_affinity"):
            settings: dict[str, object] = {
                "models": {"park-mini": {"path": "park-mini", "replicas": 2, "balance": balance}},
                "engine": {"threads": 1, **({"cache_tokens": options.kv_tokens} if options.kv_tokens else {})},
            }
            with Parkway(Path(name) / balance, settings) as parkway:
                results[balance] = asyncio.run(measure(parkway, options))
    for balance, (share, seconds) in results.items():
        print(f"{balance:20} {share:6.1%} of prompt tokens from a cache, {seconds * 1000:7.1f} ms to the first token")
    (share, seconds), (better, sooner) = results["least_outstanding"], results["prefix_affinity"]
    print(f"{'affinity / least':20} {better / max(share, 1e-9):6.2f} times the hits {sooner / seconds:8.2f} the wait")


if __name__ == "__main__":
    main()
