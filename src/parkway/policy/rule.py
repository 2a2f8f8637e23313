"""A rule: how much of something one subject may have. Limits and budgets are both made of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Literal

import msgspec

from parkway.policy.periods import Period

Kind = Literal["key", "user", "team", "model", "agent", "task"]
KINDS: tuple[Kind, ...] = ("key", "user", "team", "model", "agent", "task")

Measure = Literal["requests", "tokens", "micro_usd", "concurrency"]


Told = tuple[tuple[bytes, bytes], bytes, bytes]
"""The header that tells of a limit, and the names of those for what remains of it and for when it is whole again."""


class Form(IntEnum):
    """How a rule counts. The numbers stand in `counters.lua` too."""

    RATE = 0
    """What was used drains at a steady rate: the Generic Cell Rate Algorithm, as a leaky bucket (ITU-T I.371, A)."""
    WINDOW = 1
    """A sum that begins anew with each period."""
    SLOTS = 2
    """What is in flight."""


RATE, WINDOW, SLOTS = Form
"""For comparisons in every request: to find a member in its class takes five times as long as to compare it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One limit, for each of its subjects.

    Attributes:
        name: Of its counters. It says what is counted and not how much may be: a changed limit goes on with what was
            used.
        limit: The burst of a rate, the sum of a window, the number of slots.
        per_s: What a rate gives back each second.
        period: Of a window.
        setting: Where to change it.
        budget: Whether it is one of `budgets`: its spending is kept in the store.
        enters: Whether it enters what is spent, in tokens and money, into the ledger: one rule of each budget does.
        hard: Whether it refuses; one that does not only warns.
        warn_at: The share of the limit at which the log has a warning.
        warn_from: The amount at which it has.
        told: How OpenAI's headers tell of it; None where they do not.
        full: The limit with room for rounding: a clock in floating-point seconds is off by up to a nanosecond, and a
            large count by its last digits. Without it a subject that waits exactly as long as it was told would be
            refused again.
    """

    name: str
    kind: Kind
    measure: Measure
    form: Form
    limit: float
    per_s: float = 0.0
    period: Period | None = None
    setting: str = "limits"
    budget: bool = False
    enters: bool = True
    hard: bool = True
    warn_at: float = 0.8
    warn_from: float = field(init=False)
    told: Told | None = field(init=False)
    full: float = field(init=False)

    def __post_init__(self) -> None:
        full = self.limit * (1 + 1e-12) + self.per_s * 1e-9 if self.form is RATE else self.limit
        object.__setattr__(self, "full", full)
        object.__setattr__(self, "warn_from", self.warn_at * self.limit)
        object.__setattr__(self, "told", self._told())

    def _told(self) -> Told | None:
        if self.budget or self.measure not in ("requests", "tokens"):
            return None
        limit, remaining, reset = (
            f"x-ratelimit-{what}-{self.measure}".encode() for what in ("limit", "remaining", "reset")
        )
        return (limit, b"%d" % self.limit), remaining, reset


class Charge(msgspec.Struct, frozen=True, gc=False):
    """So much of what a rule counts, for one subject."""

    rule: Rule
    subject: str
    amount: float
