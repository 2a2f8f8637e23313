"""Repeats: the same refusal of the same caller again and again; the audit log keeps some and counts the rest."""

from __future__ import annotations

import time
from collections.abc import Callable

from parkway.policy.chain import Entry, now_ms

WINDOW_S = 60.0
MAX_SUBJECTS = 1000
"""Callers that are told apart in one window; those beyond share one count."""

ALL_TOGETHER = 20
"""How many times the limit of one caller all callers together get in a window."""

_OTHERS = "others"


class _Count:
    __slots__ = ("kept", "left_out")

    def __init__(self) -> None:
        self.kept = 0
        self.left_out = 0


class Repeats:
    """Lets `limit` refusals of one kind to one caller through in a minute, and counts those beyond it.

    To be refused costs nothing but the asking: without this a stranger could fill the disk. All callers together get
    at most `ALL_TOGETHER` times as much, for many addresses must be no way around it.

    Args:
        clock: Seconds, monotonic.
    """

    def __init__(self, limit: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._clock = clock
        self._began = clock()
        self._counts: dict[tuple[str, str, str, str], _Count] = {}
        self._kept = 0

    def replace(self, limit: int) -> None:
        """Another limit from now on, for the minute that runs too."""
        self._limit = limit

    def passes(self, entry: Entry) -> bool:
        """Whether `entry` gets a place of its own; it is counted if not."""
        subject = (entry.kind, entry.outcome, entry.key_id, entry.source)
        count = self._counts.get(subject)
        if count is None:
            if len(self._counts) >= MAX_SUBJECTS:
                subject = (entry.kind, "", "", _OTHERS)
            count = self._counts.setdefault(subject, _Count())
        if count.kept < self._limit and self._kept < self._limit * ALL_TOGETHER and subject[3] is not _OTHERS:
            count.kept += 1
            self._kept += 1
            return True
        count.left_out += entry.count
        return False

    def due(self, *, at_once: bool = False) -> list[Entry]:
        """At the end of a window: one entry for each caller of whom something was only counted."""
        if not self._counts or not (at_once or self._clock() >= self._began + WINDOW_S):
            return []
        found = [
            Entry(
                kind="suppressed",
                action=kind,
                outcome=outcome,
                key_id=key_id,
                source=source,
                count=count.left_out,
                at_ms=now_ms(),
            )
            for (kind, outcome, key_id, source), count in self._counts.items()
            if count.left_out
        ]
        self._counts.clear()
        self._kept = 0
        self._began = self._clock()
        return found
