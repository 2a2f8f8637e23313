"""Ids: a prefix that says what it is, then 32 hexadecimal digits that sort by time."""

import os
import time


def new_id(prefix: str) -> str:
    """A fresh id such as `req_0199f2...`: 48 bits of milliseconds since 1970, then 80 random bits."""
    return f"{prefix}_{time.time_ns() // 1_000_000:012x}{os.urandom(10).hex()}"
