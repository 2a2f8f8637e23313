"""The encoders of an owner: loaded once each, for the threads that take documents in and for those that search."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np

from parkway.core.errors import ConfigurationError, IndexUnavailable
from parkway.engine import builtin
from parkway.engine.config import EngineConfig
from parkway.engine.directory import ModelDirectory
from parkway.engine.embedder import MAX_TEXTS, Embedder

_TIMEOUT_S = 600.0


class LoadedEncoder:
    """One encoder, for other threads than the event loop's. Texts of all of them share its passes.

    Attributes:
        reads: The most tokens of a text, those around it included.
    """

    def __init__(self, embedder: Embedder, loop: asyncio.AbstractEventLoop) -> None:
        self._embedder = embedder
        self._loop = loop
        self.reads = embedder.context
        self.dimensions = embedder.dimensions

    def embed(self, texts: Sequence[str]) -> Any:
        """float32 [texts, dimensions], rows of length 1; what is beyond `reads` of a text is not read. Blocks.

        Raises:
            IndexUnavailable: It takes too long, or the process is about to end.
        """
        rows: list[Any] = []
        for start in range(0, len(texts), MAX_TEXTS):
            tokens = self._embedder.tokenise_cut(texts[start : start + MAX_TEXTS])
            waiting = asyncio.run_coroutine_threadsafe(self._embedder.embed(tokens), self._loop)
            try:
                rows += [vector.cpu().numpy() for vector in waiting.result(_TIMEOUT_S)]
            except TimeoutError as error:
                raise IndexUnavailable(f"the encoder took longer than {_TIMEOUT_S:g} s") from error
            finally:
                waiting.cancel()  # if it is not there: nobody waits for it any more, as after Ctrl-C
        found = np.asarray(rows, np.float32).reshape(len(rows), self.dimensions)
        return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)

    def count(self, texts: Sequence[str]) -> list[int]:
        """The tokens of each text, with those around it."""
        return self._embedder.count(texts)


class Encoders:
    """By the names of their models. Used from the event loop alone.

    Args:
        directories: Where models lie that are configured, by name.
    """

    def __init__(self, directories: dict[str, str], config: EngineConfig) -> None:
        self._directories = directories
        self._config = config
        self._embedders: dict[str, Embedder] = {}

    async def of(self, model: str) -> LoadedEncoder:
        """The encoder, which is loaded if it is not yet.

        Raises:
            ConfigurationError: The model is no sentence encoder.
            ModelFilesError: It cannot be loaded.
        """
        if model not in self._embedders:
            directory = ModelDirectory(builtin.resolve(self._directories.get(model, model)))
            if directory.kind != "encoder":
                raise ConfigurationError(f"{model} is no sentence encoder; documents need one, such as park-embed")
            self._embedders[model] = Embedder(directory, self._config)
        return LoadedEncoder(self._embedders[model], asyncio.get_running_loop())

    async def close(self) -> None:
        """Ends their threads, after the texts that wait."""
        for embedder in self._embedders.values():
            await embedder.close()
