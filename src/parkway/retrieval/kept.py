"""What was made lately, kept for whoever asks for it again: within bounds, and made once however many ask at once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(slots=True)
class Tally:
    """How often something was there already, or was being made, and how often it had to be made."""

    hits: int = 0
    misses: int = 0


class Kept(Generic[T]):
    """The latest values, by their keys. For threads.

    Args:
        most, most_bytes: The oldest go where there are more.
        bytes_of: About what a value takes, its key included.
        tally: May be shared with others.
    """

    def __init__(self, most: int, most_bytes: int, bytes_of: Callable[[T], int], tally: Tally | None = None) -> None:
        self.tally = tally or Tally()
        self._most = most
        self._most_bytes = most_bytes
        self._bytes_of = bytes_of
        self._lock = threading.Lock()
        self._values: OrderedDict[Hashable, tuple[T, int]] = OrderedDict()
        self._made: dict[Hashable, Future[T]] = {}
        self._bytes = 0
        self._cleared = 0

    def of(self, key: Hashable, make: Callable[[], tuple[T, bool]]) -> tuple[T, bool]:
        """The value, and whether somebody else made it.

        Args:
            make: Makes it, and says whether it is to be kept. What it raises, all get who wait for it.
        """
        with self._lock:
            if (kept := self._values.get(key)) is not None:
                self._values.move_to_end(key)
                self.tally.hits += 1
                return kept[0], True
            theirs, mine, began = self._made.get(key), Future[T](), self._cleared
            if theirs is None:
                self.tally.misses += 1
                self._made[key] = mine
            else:
                self.tally.hits += 1
        if theirs is not None:
            return theirs.result(), True
        try:
            value, keep = make()
            size = self._bytes_of(value) if keep else 0
        except BaseException as error:
            with self._lock:
                self._made_by(mine, key)
            mine.set_exception(error)
            raise
        with self._lock:
            self._made_by(mine, key)
            if keep and began == self._cleared:
                self._keep(key, value, size)
        mine.set_result(value)
        return value, False

    def clear(self) -> None:
        """Forgets all of them; what is being made now is not kept, nor given to those who ask from now on."""
        with self._lock:
            self._values.clear()
            self._made.clear()
            self._bytes = 0
            self._cleared += 1

    def _made_by(self, mine: Future[T], key: Hashable) -> None:
        if self._made.get(key) is mine:
            del self._made[key]

    def _keep(self, key: Hashable, value: T, size: int) -> None:
        if size > self._most_bytes:
            return
        self._values[key] = value, size
        self._bytes += size
        while len(self._values) > self._most or self._bytes > self._most_bytes:
            _, (_, gone) = self._values.popitem(last=False)
            self._bytes -= gone
