"""Where answers are kept: in the memory of one process, or in Redis for all."""

from __future__ import annotations

import sys
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

from parkway.aggregate.response_cache.question import Generation, KeptAnswer

_ENTRY_BYTES = 400
"""What an entry takes beside the answer itself, about."""


class Shelf(Protocol):
    """Keeps answers under keys. Nothing here raises: what cannot be had is a miss, what cannot be kept is not."""

    async def get(self, key: bytes, model: str, generation: Generation) -> KeptAnswer | None:
        """The answer, if there is one that is not too old. One of a `model` that was cleared since `generation`, by
        whomever, is none."""
        ...

    async def put(self, key: bytes, answer: KeptAnswer) -> None:
        """Keeps `answer`, in the place of an older one."""
        ...

    async def drop(self, key: bytes) -> None:
        """Forgets the answer."""
        ...

    async def clear(self, model: str, number: int) -> None:
        """Forgets the answers of a model, or of all where `model` is empty, that are older than its clearing of this
        `number`."""
        ...


class MemoryShelf:
    """A bounded number of bytes; beyond it the longest unused answers go.

    Args:
        clock: Seconds, monotonic.
    """

    def __init__(self, max_bytes: int, ttl_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_bytes = max_bytes
        self._ttl_s = ttl_s
        self._clock = clock
        self._answers: OrderedDict[bytes, tuple[float, KeptAnswer]] = OrderedDict()
        self.bytes = 0
        """What is kept now, about."""

    async def get(self, key: bytes, model: str, generation: Generation) -> KeptAnswer | None:  # noqa: ARG002
        found = self._answers.get(key)
        if found is None:
            return None
        good_until, answer = found
        if self._clock() >= good_until:
            self._remove(key)
            return None
        self._answers.move_to_end(key)
        return answer

    async def put(self, key: bytes, answer: KeptAnswer) -> None:
        self._remove(key)
        size = _size(answer)
        if size > self._max_bytes:
            return
        self._answers[key] = (self._clock() + self._ttl_s, answer)
        self.bytes += size
        while self.bytes > self._max_bytes:
            self._remove(next(iter(self._answers)))

    async def drop(self, key: bytes) -> None:
        self._remove(key)

    async def clear(self, model: str, number: int) -> None:  # noqa: ARG002 - nobody else puts anything here
        for key in [key for key, (_, answer) in self._answers.items() if not model or answer.model == model]:
            self._remove(key)

    def _remove(self, key: bytes) -> None:
        if (found := self._answers.pop(key, None)) is not None:
            self.bytes -= _size(found[1])


def _size(answer: KeptAnswer) -> int:
    return _ENTRY_BYTES + len(answer.body) + sys.getsizeof(answer.model)
