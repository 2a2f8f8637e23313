"""The periods that daily limits and budgets go by: days and months of UTC, or all time."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

Period = Literal["day", "month", "total"]

DAY_MS = 86_400_000


def start_of(period: Period, now_ms: int) -> int:
    """When the period around `now_ms` began, in milliseconds since 1970; 0 for `total`."""
    if period == "day":
        return now_ms - now_ms % DAY_MS
    if period == "month":
        first = datetime.fromtimestamp(now_ms / 1000, UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        return int(first.timestamp()) * 1000
    return 0


def end_of(period: Period, start_ms: int) -> int | None:
    """When the period that began at `start_ms` ends and the next one begins; None: never."""
    if period == "day":
        return start_ms + DAY_MS
    if period == "month":
        return start_of("month", start_ms + 32 * DAY_MS)
    return None
