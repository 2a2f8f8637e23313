"""Counts of the last few seconds."""

from __future__ import annotations

_SLOTS = 10


class Window:
    """How many of two kinds there were in the last `window_s`, to a tenth of it; constant time and memory.

    The first kind are all (requests), the second some of them (failures, retries). Times are of one monotonic clock.
    """

    __slots__ = ("_all", "_slot", "_slot_s", "_some", "all", "some")

    def __init__(self, window_s: float) -> None:
        self._slot_s = window_s / _SLOTS
        self._all = [0] * _SLOTS
        self._some = [0] * _SLOTS
        self._slot = 0
        self.all = 0
        self.some = 0

    def add(self, now: float, all: int = 0, some: int = 0) -> None:
        """Counts; with zeros it only forgets what is over, so that `all` and `some` are true at `now`."""
        slot = int(now / self._slot_s)
        if slot != self._slot:
            self._forget(slot)
        place = slot % _SLOTS
        if all:
            self._all[place] += all
            self.all += all
        if some:
            self._some[place] += some
            self.some += some

    def clear(self) -> None:
        self._all, self._some = [0] * _SLOTS, [0] * _SLOTS
        self.all = self.some = 0

    def stretch(self, window_s: float, now: float) -> None:
        """Another length from now on. What was counted until now counts as if it had just been."""
        self.add(now)
        all, some = self.all, self.some
        self.clear()
        self._slot_s = window_s / _SLOTS
        self._slot = int(now / self._slot_s)
        self.add(now, all=all, some=some)

    def _forget(self, slot: int) -> None:
        """Empties the slots between the last one used and `slot`."""
        for old in range(max(self._slot + 1, slot - _SLOTS + 1), slot + 1):
            place = old % _SLOTS
            self.all -= self._all[place]
            self.some -= self._some[place]
            self._all[place] = self._some[place] = 0
        self._slot = max(self._slot, slot)


class Allowance:
    """How many extra requests there may be: a share of those of the last `window_s`, and a few for quiet times.

    It keeps retries from multiplying the load on a system that fails because of load.
    Source: Finagle's `RetryBudget` (twitter.github.io/finagle/guide/Clients.html, "Retry Budgets").
    """

    def __init__(self, share: float, min_per_s: float, window_s: float) -> None:
        self._share = share
        self._always = min_per_s * window_s
        self._window = Window(window_s)

    def replace(self, share: float, min_per_s: float, window_s: float, now: float) -> None:
        """Other bounds from now on; what was counted stays counted."""
        self._share = share
        self._always = min_per_s * window_s
        self._window.stretch(window_s, now)

    def request(self, now: float) -> None:
        """Counts a request of the first attempt."""
        self._window.add(now, all=1)

    def take(self, now: float) -> bool:
        """Whether one more is allowed; if so it is counted."""
        window = self._window
        window.add(now)
        if window.some + 1 > self._always + self._share * window.all:
            return False
        window.add(now, some=1)
        return True
