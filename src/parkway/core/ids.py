"""Ids: a prefix that says what it is, then 32 hexadecimal digits that sort by time."""

import os
import time

_BYTES = 10
_AT_ONCE = 256  # asking the kernel each time would be a third of the cost of an id

_drawn: list[str] = []
os.register_at_fork(after_in_child=_drawn.clear)  # what a parent has drawn is the parent's


def new_id(prefix: str) -> str:
    """A fresh id such as `req_0199f2...`: 48 bits of milliseconds since 1970, then 80 random bits."""
    return f"{prefix}_{time.time_ns() // 1_000_000:012x}{_random()}"


def _random() -> str:
    """Hexadecimal digits that nobody else gets, in whatever thread."""
    while True:
        try:
            return _drawn.pop()  # one step of the interpreter
        except IndexError:
            data = os.urandom(_BYTES * _AT_ONCE).hex()
            _drawn.extend(data[start : start + 2 * _BYTES] for start in range(0, len(data), 2 * _BYTES))
