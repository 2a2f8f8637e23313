"""Counters of what rules have given out: the contract, and the one that counts in this process's memory."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from parkway.policy.periods import DAY_MS, Period, end_of, start_of
from parkway.policy.rule import RATE, WINDOW, Charge, Rule

RESERVED_WAIT_S = 1.0
"""What to wait for where only requests in flight are in the way: nobody knows when they end."""


class Standing(msgspec.Struct, frozen=True, gc=False):
    """How a subject stands with a rule once a charge is taken.

    Attributes:
        used: With everything that is reserved.
        spent: Without it; windows only.
        start_ms: When the window began.
    """

    used: float
    spent: float = 0.0
    start_ms: int = 0


@dataclass(slots=True)
class Grant:
    """Charges that were taken, all of them, and have to be settled once. Nobody changes it.

    Attributes:
        lease: Its number in this process.
        local: Whether this process counted it, because the store that is shared was away.
    """

    lease: int
    charges: Sequence[Charge]
    standings: Sequence[Standing]
    local: bool = False


@dataclass(frozen=True, slots=True)
class Refusal:
    """Nothing was taken. Of all rules that refuse, `charge` is of the one that takes the longest to let it pass.

    Attributes:
        wait_s: When it passes if nobody else asks; None: never.
        spent: What was used up of the limit, without what is reserved.
        reserved: What is reserved by requests in flight.
    """

    charge: Charge
    wait_s: float | None
    spent: float = 0.0
    reserved: float = 0.0


class Counters(Protocol):
    """Where it is counted. Two stand behind it: memory, and Redis for several processes; one suite tests both."""

    async def take(self, charges: Sequence[Charge], lease: int, lease_s: float) -> Grant | Refusal:
        """Takes all of `charges`, or nothing.

        Args:
            lease: A number that no other grant of this process has.
            lease_s: What a process that dies had reserved is free again after so long.
        """
        ...

    def settle(self, grant: Grant, used: Sequence[float]) -> None:
        """Puts what was really used in the place of each charge of `grant`, and frees its slots. Never waits.

        Requests stay counted: a grant of nothing else need not be settled.
        """
        ...

    def learn(self, name: str, subject: str, start_ms: int, spent: float) -> None:
        """What the store knows to be spent in a window: the counter is raised to it, never lowered."""
        ...

    def spent(self, rule: Rule, subject: str) -> Standing:
        """How a subject stands with a window, as far as this process knows."""
        ...


State = tuple[str, str]
"""The name of a rule and a subject."""

Starts = Mapping[Period, int]
"""When the periods that run now began, in milliseconds since 1970."""


class Window(msgspec.Struct, gc=False):
    """A window as it is counted; `known` is what the store knows to be spent."""

    start_ms: int
    spent: float = 0.0
    reserved: float = 0.0
    known: float = 0.0


class MemoryCounters:
    """Counts in this process alone; a decision takes a few microseconds, whatever the number of subjects.

    Args:
        clock: Seconds that never go back, for rates.
        wall: Seconds since 1970, for periods.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._wall = wall
        self._rates: dict[State, tuple[float, float, float]] = {}  # used and not yet drained, at which time, empty when
        self._windows: dict[State, Window] = {}
        self._slots: dict[State, int] = {}
        self._sweep_at = 1024
        self._starts: Starts = {"day": 0, "month": 0, "total": 0}
        self._starts_until_ms = 0

    def __len__(self) -> int:
        """How many counters are held in memory; what is at rest is not."""
        return len(self._rates) + len(self._windows) + len(self._slots)

    async def take(self, charges: Sequence[Charge], lease: int, lease_s: float = 0.0) -> Grant | Refusal:  # noqa: ARG002 - a process that dies takes its memory along
        return self.take_now(charges, lease)

    def take_now(
        self, charges: Sequence[Charge], lease: int, share: int = 1, *, local: bool = False
    ) -> Grant | Refusal:
        """`take` without waiting.

        Args:
            share: Of so many processes, each holding itself to its part of what is left of each limit.
        """
        now, starts = self._clock(), self._starts_now()
        rates, windows, slots = self._rates, self._windows, self._slots
        standings: list[Standing] = []
        fits = True
        for charge in charges:
            rule, amount = charge.rule, charge.amount
            form, state = rule.form, (rule.name, charge.subject)
            spent, start, used = 0.0, 0, amount
            if form is RATE:
                before = rates.get(state)
                if before is not None:
                    used += max(0.0, before[0] - (now - before[1]) * rule.per_s / share)
            elif form is WINDOW:
                start = starts[rule.period or "total"]
                window = windows.get(state)
                if window is not None and window.start_ms >= start:  # a clock that was set back opens no new one
                    start, spent = window.start_ms, window.spent
                    used += spent + window.reserved
            else:
                used += slots.get(state, 0)
            if used > (rule.full if share == 1 else self._part(charge, share, start)) and amount > 0 and rule.hard:
                fits = False
            standings.append(Standing(used, spent, start))
        if not fits:
            return self._refusal(charges, standings, share)
        for charge, standing in zip(charges, standings, strict=True):
            rule, used = charge.rule, standing.used
            form, state = rule.form, (rule.name, charge.subject)
            if form is RATE:
                rates[state] = (used, now, now + used * share / rule.per_s)
            elif form is WINDOW:
                window = windows.get(state)
                if window is None or window.start_ms != standing.start_ms:
                    window = windows[state] = Window(standing.start_ms)
                if rule.measure == "requests":
                    window.spent += charge.amount
                window.reserved = used - window.spent
            else:
                slots[state] = int(used)
        if len(rates) + len(windows) + len(slots) > self._sweep_at:
            self._sweep(now)
        return Grant(lease, charges, standings, local)

    def settle(self, grant: Grant, used: Sequence[float]) -> None:
        now = self._clock()
        for charge, standing, actual in zip(grant.charges, grant.standings, used, strict=True):
            rule, amount = charge.rule, charge.amount
            state = (rule.name, charge.subject)
            if rule.form is RATE:
                if actual != amount:
                    before, at, _ = self._rates.get(state, (0.0, now, now))
                    left = max(0.0, max(0.0, before - (now - at) * rule.per_s) + actual - amount)
                    self._rates[state] = (left, now, now + left / rule.per_s)
            elif rule.measure == "requests":
                continue
            elif rule.form is WINDOW:
                window = self._windows.get(state)
                if window is not None and window.start_ms == standing.start_ms:  # else it is over
                    window.spent += actual
                    window.reserved -= amount
            else:
                left = self._slots.get(state, 0) - int(amount)
                if left > 0:
                    self._slots[state] = left
                else:
                    self._slots.pop(state, None)

    def learn(self, name: str, subject: str, start_ms: int, spent: float) -> None:
        window = self._windows.get((name, subject))
        if window is None or window.start_ms < start_ms:
            if len(self) > self._sweep_at:
                self._sweep(self._clock())
            window = self._windows[name, subject] = Window(start_ms)
        if window.start_ms == start_ms:
            window.spent = max(window.spent, spent)
            window.known = max(window.known, spent)

    def spent(self, rule: Rule, subject: str) -> Standing:
        start = self._starts_now()[rule.period or "total"]
        window = self._windows.get((rule.name, subject))
        if window is None or window.start_ms < start:
            return Standing(0.0, 0.0, start)
        return Standing(window.spent + window.reserved, window.spent, window.start_ms)

    def _part(self, charge: Charge, share: int, start_ms: int) -> float:
        """What one of several processes may have of a limit."""
        rule = charge.rule
        if rule.form is RATE:
            # What is more than a share and less than the whole passes a bucket that has drained.
            return max(rule.full / share, charge.amount)
        if rule.form is WINDOW:
            # What is left of it is shared. What this process has spent of its share is not known to the store yet.
            window = self._windows.get((rule.name, charge.subject))
            known = window.known if window is not None and window.start_ms == start_ms else 0.0
            return known + (rule.limit - known) / share
        return max(1, rule.limit // share)

    def _refusal(self, charges: Sequence[Charge], standings: Sequence[Standing], share: int) -> Refusal:
        """The refusal for charges of which at least one does not fit; `standings` are those that they would lead to."""
        refusals: list[Refusal] = []
        for charge, standing in zip(charges, standings, strict=True):
            rule, used, spent = charge.rule, standing.used, standing.spent
            most = rule.full if share == 1 else self._part(charge, share, standing.start_ms)
            if used <= most or charge.amount <= 0 or not rule.hard:
                continue
            if rule.form is RATE:
                refusals.append(Refusal(charge, _drained_s(charge, used, share)))
                continue
            wait_s: float | None = RESERVED_WAIT_S
            if rule.form is WINDOW and spent + charge.amount > most:
                end = end_of(rule.period or "total", standing.start_ms)
                wait_s = None if end is None or charge.amount > rule.limit else end / 1000 - self._wall()
            refusals.append(Refusal(charge, wait_s, spent, used - spent - charge.amount))
        return max(refusals, key=_wait_s)

    def _starts_now(self) -> Starts:
        now_ms = int(self._wall() * 1000)
        if not self._starts["day"] <= now_ms < self._starts_until_ms:
            self._starts = {"day": start_of("day", now_ms), "month": start_of("month", now_ms), "total": 0}
            self._starts_until_ms = self._starts["day"] + DAY_MS
        return self._starts

    def _sweep(self, now: float) -> None:
        """Forgets what is at rest. The next sweep comes when the rest has doubled: a constant cost a request."""
        self._rates = {state: rate for state, rate in self._rates.items() if rate[2] > now}
        starts = self._starts_now()
        today, month = starts["day"], starts["month"]
        self._windows = {
            state: window
            for state, window in self._windows.items()
            if (window.spent > 0 or window.reserved > 0) and (window.start_ms in (0, month) or window.start_ms >= today)
        }
        self._sweep_at = max(1024, 2 * len(self))


def _drained_s(charge: Charge, used: float, share: int) -> float | None:
    """How long it takes until a rate has room for `charge`, which makes it `used`."""
    rule, amount = charge.rule, charge.amount
    if amount > rule.full:
        return None
    return (used - max(rule.limit / share, amount)) / (rule.per_s / share)


def _wait_s(refusal: Refusal) -> float:
    return math.inf if refusal.wait_s is None else refusal.wait_s
