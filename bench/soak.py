"""Does an engine's memory stay where it is: random load for an hour, with cancels; fails if memory grows."""

from __future__ import annotations

import argparse
import asyncio
import json
import random
from dataclasses import dataclass

import aiohttp

from bench.peers.engine_server import EngineServer, settings_of
from bench.peers.growth import Growth
from parkway.engine import builtin
from parkway.engine.directory import ModelDirectory
from parkway.engine.shape import ModelShape
from parkway.engine.tokenizer import Tokenizer
from tests.running import resident_mib

GROWTH = 1.03  # the most
CANCELLED = 0.3  # of requests
SHARED = 0.3  # of prompts begin as another one did
WORDS = ("list", "copy", "find", "count", "archive", "unpack", "folder", "file", "line", "user", "disk", "port")


@dataclass(slots=True)
class Counts:
    """What became of the requests."""

    answered: int = 0
    cancelled: int = 0
    refused: int = 0

    def __str__(self) -> str:
        return f"{self.answered:8,} answered {self.cancelled:7,} cancelled {self.refused:6,} refused"


class Client:
    """Sends one request after the other, none like the one before.

    Args:
        vocabulary: token ids are below this.
        context: tokens of a prompt and its answer.
    """

    def __init__(self, url: str, vocabulary: int, context: int, counts: Counts, seed: int) -> None:
        self._url = url
        self._vocabulary = vocabulary
        self._context = context
        self._counts = counts
        self._random = random.Random(seed)
        shared = random.Random(0)  # the same for every client
        self._beginnings = [[shared.randrange(vocabulary) for _ in range(context // 2)] for _ in range(4)]

    async def run(self) -> None:
        """Until cancelled. Raises `RuntimeError` at an answer that should not be."""
        timeout = aiohttp.ClientTimeout(total=600)
        async with aiohttp.ClientSession(self._url, timeout=timeout) as session:
            while True:
                path, body = self._request()
                patience_s = self._random.expovariate(2.0) if self._random.random() < CANCELLED else None
                try:
                    async with asyncio.timeout(patience_s):
                        await self._ask(session, path, body)
                except TimeoutError:
                    if patience_s is None:
                        raise
                    self._counts.cancelled += 1
                await asyncio.sleep(self._random.expovariate(20.0))

    def _request(self) -> tuple[str, dict[str, object]]:
        """A chat of a few words, or a completion of tokens of any length; streamed or not, greedy or not."""
        body: dict[str, object] = {
            "model": "bench",
            "stream": self._random.random() < 0.6,
            "temperature": self._random.choice((0, 0.7, 1.0)),
            "n": self._random.choice((1, 1, 1, 2)),
        }
        most = max(1, self._context // 4)
        body["max_tokens"] = self._random.randint(1, most)
        if self._random.random() < 0.3:
            words = " ".join(self._random.choices(WORDS, k=self._random.randint(1, 12)))
            return "/v1/chat/completions", body | {"messages": [{"role": "user", "content": words}]}
        length = int(self._context * 0.7 * self._random.random() ** 2) + 1  # more short ones than long ones
        prompt = [self._random.randrange(self._vocabulary) for _ in range(length)]
        if self._random.random() < SHARED:
            beginning = self._random.choice(self._beginnings)[:length]
            prompt = beginning + prompt[len(beginning) :]
        return "/v1/completions", body | {"prompt": prompt}

    async def _ask(self, session: aiohttp.ClientSession, path: str, body: dict[str, object]) -> None:
        async with session.post(path, json=body) as response:
            answer = await response.read()
        if response.status == 503:
            self._counts.refused += 1
            return
        ended = answer.rstrip().endswith(b"data: [DONE]") if body["stream"] else "usage" in json.loads(answer)
        if response.status != 200 or not ended:
            raise RuntimeError(f"{path}: {response.status} {answer[-500:].decode(errors='replace')}")
        self._counts.answered += 1


async def soak(engine: EngineServer, options: argparse.Namespace) -> Growth:
    """Its memory over time, under load."""
    directory = ModelDirectory(builtin.resolve(options.model))
    context = min(ModelShape.from_config(directory.config).context, options.context)
    vocabulary = Tokenizer(directory).size
    counts = Counts()
    async with asyncio.TaskGroup() as group:  # one that fails ends them all, and with them the run
        clients = [
            group.create_task(Client(engine.url, vocabulary, context, counts, seed).run())
            for seed in range(1, options.clients + 1)
        ]
        growth = Growth()
        await growth.watch(options.minutes, 60, lambda: resident_mib(engine.pid), counts.__str__)
        for client in clients:
            client.cancel()
    return growth


def main() -> None:
    """Starts an engine, loads it, and compares its memory late with its memory early."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--minutes", type=float, default=60)
    arguments.add_argument("--clients", type=int, default=8)
    arguments.add_argument("--model", default="park-mini", help="a model directory, or the name of a built-in model")
    arguments.add_argument("--context", type=int, default=1024, help="the most tokens of a prompt and its answer")
    arguments.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of the engine")
    options = arguments.parse_args()
    # A cache that is full within minutes: as long as it fills, memory grows and nothing is wrong.
    settings = {"cache_bytes": str(256 << 20), "max_context_tokens": str(options.context)}
    settings |= settings_of(options.set)
    with EngineServer(options.model, settings) as engine:
        growth = asyncio.run(soak(engine, options))
    growth.judge(GROWTH)


if __name__ == "__main__":
    main()
