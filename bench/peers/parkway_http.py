"""Parkway's engine as a client sees it: `parkway engine` and streamed completions over HTTP."""

from __future__ import annotations

import asyncio
import time

import aiohttp

from bench.peers.engine_server import EngineServer
from bench.peers.protocol import Answers, serve


class ParkwayHttp:
    """The server, and clients that ask it all at once."""

    def load(
        self, *, model: str, threads: int, sequences: int, context: int, settings: dict[str, str], **_: object
    ) -> None:
        limits = {"threads": str(threads), "max_sequences": str(sequences), "max_context_tokens": str(context)}
        self._server = EngineServer(model, limits | settings)
        self._server.__enter__()  # it ends with this process

    def generate(self, *, prompts: list[list[int]], tokens: int) -> Answers:
        return asyncio.run(self._generate(prompts, tokens))

    async def _generate(self, prompts: list[list[int]], tokens: int) -> Answers:
        timeout = aiohttp.ClientTimeout(total=3600)
        async with aiohttp.ClientSession(self._server.url, timeout=timeout) as session:
            started = time.perf_counter()
            firsts = await asyncio.gather(*(self._ask(session, prompt, tokens) for prompt in prompts))
            ended = time.perf_counter()
        return Answers(max(firsts) - started, ended - max(firsts), None)

    async def _ask(self, session: aiohttp.ClientSession, prompt: list[int], tokens: int) -> float:
        """One streamed completion; returns when its first event came."""
        body = {"model": "bench", "prompt": prompt, "max_tokens": tokens, "temperature": 0, "stream": True}
        first = 0.0
        async with session.post("/v1/completions", json=body) as response:
            if response.status != 200:
                raise RuntimeError(await response.text())
            last = b""
            async for line in response.content:
                if line.startswith(b"data:"):
                    first = first or time.perf_counter()
                    last = line
        if last.strip() != b"data: [DONE]":
            raise RuntimeError(f"the stream ended with {last!r}")
        return first


if __name__ == "__main__":
    client = ParkwayHttp()
    serve(load=client.load, generate=client.generate)
