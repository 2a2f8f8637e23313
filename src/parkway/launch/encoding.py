"""`park-embed`, or another encoder, for commands that are not asynchronous."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from parkway.core.tasks import start_thread
from parkway.engine.config import EngineConfig
from parkway.launch.encoders import Encoders
from parkway.retrieval.chunking.encoder import Encoder

T = TypeVar("T")

_TIMEOUT_S = 3600.0


class Encoding:
    """A `LoadedEncoder` with an event loop of its own, in a thread.

    Attributes:
        encoder: What chunkers have to know.
        embed, reads, dimensions: Its own.
    """

    def __init__(self, model: str) -> None:
        """Raises like `Encoders.of`."""
        self._loop = asyncio.new_event_loop()
        self._thread = start_thread(self._loop.run_forever, name="encoding")
        self._encoders = Encoders({}, EngineConfig(request_timeout_s=_TIMEOUT_S))
        loaded = self._wait(self._encoders.of(model))
        self.embed = loaded.embed
        self.reads = loaded.reads
        self.dimensions = loaded.dimensions
        self.encoder = Encoder(loaded.count, loaded.reads)

    def close(self) -> None:
        """Ends its threads, after what is under way."""
        self._wait(self._encoders.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_TIMEOUT_S)
