"""What waits between reading and embedding, bounded by how much text it is."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Waiting(Generic[T]):
    """A queue of things with weights. Whoever puts more in than there is room for waits; one thing always fits.

    Attributes:
        room: The most weight.
    """

    def __init__(self, room: int) -> None:
        self.room = room
        self._things: deque[tuple[T, int]] = deque()
        self._weight = 0
        self._closed = False
        self._changed = threading.Condition()

    def put(self, thing: T, weight: int) -> bool:
        """Waits for room; whether the thing was taken, which it is not once the queue is closed."""
        with self._changed:
            while self._things and self._weight + weight > self.room and not self._closed:
                self._changed.wait()
            if self._closed:
                return False
            self._things.append((thing, weight))
            self._weight += weight
            self._changed.notify_all()
            return True

    def get(self, timeout_s: float) -> T | None:
        """The next thing; None if there is none within the time, or the queue is closed."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while not self._things and not self._closed:
                if not self._changed.wait(max(0.0, deadline - time.monotonic())):
                    return None
            if self._closed:
                return None
            thing, weight = self._things.popleft()
            self._weight -= weight
            self._changed.notify_all()
            return thing

    def close(self) -> None:
        """Whoever waits goes on; what is in the queue stays where it is."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
