"""Prefix affinity: cache hits of two engines and the time to the first token, against least outstanding."""

from __future__ import annotations

import argparse
import asyncio
import json
import random
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


class Figures:
    """What was measured with one balancer."""

    def __init__(self) -> None:
        self.waits_s: list[float] = []
        """To the first token."""
        self.prompt_tokens = 0
        self.cached_tokens = 0

    @property
    def hits(self) -> float:
        """Share of the prompts' tokens that the engines had in their caches."""
        return self.cached_tokens / max(1, self.prompt_tokens)

    @property
    def wait_ms(self) -> float:
        return statistics.median(self.waits_s) * 1000


async def ask(
    session: aiohttp.ClientSession, parkway: Parkway, messages: list[dict[str, str]], figures: Figures
) -> tuple[float, str]:
    """Seconds to the first token, and the answer."""
    body = {"model": "park-mini", "messages": messages, "max_tokens": 12, "temperature": 0, "stream": True}
    body["stream_options"] = {"include_usage": True}
    started, first, said = time.monotonic(), 0.0, ""
    headers = {"authorization": f"Bearer {parkway.key}"}
    async with session.post(f"{parkway.url}/v1/chat/completions", json=body, headers=headers) as response:
        if response.status != 200:
            raise SystemExit(await response.text())
        async for line in response.content:
            if not line.startswith(b"data: {"):
                continue
            event = json.loads(line[6:])
            if event.get("usage"):
                figures.prompt_tokens += event["usage"]["prompt_tokens"]
                figures.cached_tokens += event["usage"]["prompt_tokens_details"]["cached_tokens"]
            for choice in event["choices"]:
                if content := choice["delta"].get("content"):
                    first = first or time.monotonic() - started
                    said += content
    return first or time.monotonic() - started, said


async def converse(
    session: aiohttp.ClientSession, parkway: Parkway, number: int, options: argparse.Namespace, figures: Figures
) -> None:
    """One conversation, turn by turn."""
    messages = [{"role": "system", "content": document(number % options.subjects, options.words)}]
    for turn in range(options.turns):
        messages.append({"role": "user", "content": f"{number}.{turn}: how do I list the {SUBJECTS[turn]}?"})
        seconds, said = await ask(session, parkway, messages, figures)
        figures.waits_s.append(seconds)
        messages.append({"role": "assistant", "content": said or "-"})


async def measure(parkway: Parkway, options: argparse.Namespace) -> Figures:
    """All conversations, so many at once."""
    figures, slots = Figures(), asyncio.Semaphore(options.at_once)
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=300)) as session:

        async def in_turn(number: int) -> None:
            async with slots:
                await converse(session, parkway, number, options, figures)

        await asyncio.gather(*[in_turn(number) for number in range(options.conversations)])
    return figures


def main() -> None:
    """Runs the same conversations with each balancer over two engines of park-mini; prints ratios."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--conversations", type=int, default=24)
    arguments.add_argument("--subjects", type=int, default=12)
    arguments.add_argument("--turns", type=int, default=3)
    arguments.add_argument("--words", type=int, default=300)
    arguments.add_argument("--at-once", type=int, default=2)
    arguments.add_argument("--cache-bytes", type=int, default=30_000_000, help="of each engine: not all subjects fit")
    options = arguments.parse_args()
    results: dict[str, Figures] = {}
    with tempfile.TemporaryDirectory(prefix="parkway-bench-") as name:
        for balance in ("least_outstanding", "prefix_affinity"):
            settings: dict[str, object] = {
                "models": {"park-mini": {"path": "park-mini", "replicas": 2, "balance": balance}},
                "engine": {"threads": 1, "cache_bytes": options.cache_bytes},
            }
            with Parkway(Path(name) / balance, settings) as parkway:
                results[balance] = asyncio.run(measure(parkway, options))
    for balance, found in results.items():
        print(
            f"{balance:20} {found.hits:6.1%} of prompt tokens from a cache, {found.wait_ms:7.1f} ms to the first token"
        )
    least, affinity = results["least_outstanding"], results["prefix_affinity"]
    print(
        f"affinity / least     {affinity.hits / max(least.hits, 1e-9):5.2f} times the hits, "
        f"{(1 - affinity.hits) / max(1 - least.hits, 1e-9):.2f} of the tokens read, "
        f"{affinity.wait_ms / least.wait_ms:.2f} of the wait for the first token"
    )


if __name__ == "__main__":
    main()
