"""Whether memory stays where it is, by what it was early and late in a long run."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(slots=True)
class Growth:
    """Readings of memory over time, in MiB, at equal distances."""

    resident: list[float] = field(default_factory=list[float])

    async def watch(self, minutes: float, pause_s: float, read: Callable[[], float], said: Callable[[], str]) -> None:
        """Reads every `pause_s`, and more often where the whole time would have too few readings; prints each.

        Args:
            read: The memory now.
            said: What else to print beside it.
        """
        pause_s = min(pause_s, minutes * 60 / 40)
        started = time.monotonic()
        while (minute := (time.monotonic() - started) / 60) < minutes:
            await asyncio.sleep(pause_s)
            self.resident.append(read())
            print(f"{minute + pause_s / 60:7.1f} min {self.resident[-1]:9.1f} MiB {said()}", flush=True)

    def judge(self, at_most: float) -> None:
        """Compares the last quarter's median with the second quarter's: in the first one caches still fill.

        Raises:
            SystemExit: The ratio is above `at_most`.
        """
        quarter = len(self.resident) // 4
        early, late = (
            statistics.median(part) for part in (self.resident[quarter : 2 * quarter], self.resident[-quarter:])
        )
        print(f"second quarter {early:.1f} MiB, last quarter {late:.1f} MiB: {late / early:.4f}   (at most {at_most})")
        if late > at_most * early:
            raise SystemExit("memory grows")
