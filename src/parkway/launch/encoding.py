"""`park-embed`, or another encoder, for commands that are not asynchronous."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

import numpy as np
from tokenizers import Tokenizer

from parkway.core.tasks import start_thread
from parkway.engine import builtin
from parkway.engine.config import EngineConfig
from parkway.engine.directory import ModelDirectory
from parkway.engine.embedder import Embedder
from parkway.retrieval.chunking.encoder import Encoder
from parkway.retrieval.index.index import Vectors

_BATCH = 128
_TIMEOUT_S = 3600.0

T = TypeVar("T")


class Encoding:
    """An embedding model with an event loop of its own, in a thread. Calls block.

    Attributes:
        dimensions: Of its vectors.
        reads: The most tokens of a text that it reads.
    """

    def __init__(self, model: str) -> None:
        """
        Args:
            model: The name of one that comes with the package, or a directory.

        Raises:
            ModelFilesError: It cannot be loaded.
        """
        directory = ModelDirectory(builtin.resolve(model))
        self._tokenizer = Tokenizer.from_file(str(directory.path / "tokenizer.json"))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._loop = asyncio.new_event_loop()
        self._thread = start_thread(self._loop.run_forever, name="encoding")
        self._embedder = self._wait(_open(directory))
        self.dimensions = self._embedder.dimensions
        self.reads = self._embedder.context

    @property
    def encoder(self) -> Encoder:
        """What chunkers have to know."""
        return Encoder(lambda texts: [len(each) for each in self._tokens(texts)], self.reads)

    def embed(self, texts: Sequence[str]) -> Vectors:
        """float32 [texts, dimensions], rows of length 1. What it does not read of a text is cut off."""
        tokens = [self._cut(each) for each in self._tokens(texts)]
        order = sorted(range(len(tokens)), key=lambda at: len(tokens[at]))
        made = np.zeros((len(tokens), self.dimensions), np.float32)
        for start in range(0, len(order), _BATCH):
            part = order[start : start + _BATCH]
            made[part] = [row.numpy() for row in self._wait(self._embedder.embed([tokens[at] for at in part]))]
        return made

    def close(self) -> None:
        """Ends its threads, after what is under way."""
        self._wait(self._embedder.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _tokens(self, texts: Sequence[str]) -> list[list[int]]:
        return [each.ids for each in self._tokenizer.encode_batch_fast(list(texts))]

    def _cut(self, tokens: list[int]) -> list[int]:
        """As much as is read, with the token that ends a text."""
        return tokens if len(tokens) <= self.reads else [*tokens[: self.reads - 1], tokens[-1]]

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_TIMEOUT_S)


async def _open(directory: ModelDirectory) -> Embedder:
    return Embedder(directory, EngineConfig(request_timeout_s=_TIMEOUT_S))
