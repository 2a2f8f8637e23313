"""Ends a child that runs but no longer answers, so that its supervisor starts it again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from parkway.launch.child import Child
from parkway.launch.probe import answers

_MISSES = 6

Address = tuple[str, int]


async def watch(child: Child, address: Callable[[], Address | None], patience_s: float) -> None:
    """Asks `child` for a sign of life, for as long as this runs.

    Only a process that has answered before is taken to hang: one that still starts has its own time for that.

    Args:
        address: Host and port at which it answers; None while it has none.
        patience_s: It is killed once it has not answered for so long.
    """
    pause_s = patience_s / _MISSES
    proven: int | None = None  # the process that has answered
    misses = 0
    while True:
        pid, place = child.pid, address()
        if pid is not None and place is not None and child.state == "ready":
            if await answers(*place, timeout_s=pause_s):
                proven, misses = pid, 0
            elif pid == proven and child.pid == pid:
                misses += 1
            if misses >= _MISSES:
                child.restart(f"has not answered for {patience_s:g} s")
                proven, misses = None, 0
        await asyncio.sleep(pause_s)
