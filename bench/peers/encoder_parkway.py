"""Parkway's own encoder, as the owner of a partition runs it; in float32 it is torch's."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import torch

from bench.peers.encoder_batches import timed
from bench.peers.protocol import serve
from parkway.core.tasks import start_thread
from parkway.engine.config import EngineConfig
from parkway.launch.encoders import Encoders, LoadedEncoder

TIMEOUT_S = 3600.0


class ParkwayEncoder:
    """Takes token ids, as everybody else does; or texts, which `read_and_embed` reads as well."""

    def load(self, *, model: str, threads: int, dtype: str, **_: object) -> None:
        torch.set_num_threads(threads)
        self._loop = asyncio.new_event_loop()
        start_thread(self._loop.run_forever, name="bench/encoder")
        config = EngineConfig.model_validate({"dtype": dtype, "request_timeout_s": TIMEOUT_S})
        self._encoder: LoadedEncoder = self._wait(Encoders({}, config).of(model))

    def embed(self, *, texts: list[list[int]]) -> dict[str, Any]:
        return timed(lambda: self._wait(self._encoder._embedder.embed(texts)))

    def read_and_embed(self, *, texts: list[str]) -> dict[str, Any]:
        return timed(lambda: self._encoder.embed(texts))

    def _wait(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(TIMEOUT_S)


if __name__ == "__main__":
    peer = ParkwayEncoder()
    serve(load=peer.load, embed=peer.embed, read_and_embed=peer.read_and_embed)
