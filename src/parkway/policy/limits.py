"""Limits: how many requests and tokens a key, a user, a team or a model gets, and how many at once."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from parkway.core.configuration import Section
from parkway.policy.rule import RATE, SLOTS, WINDOW, Form, Kind, Rule

PerSecond = Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)]
TokensPerSecond = Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)]
Burst = Annotated[int, Field(ge=1, le=10_000_000)]
Count = Annotated[int, Field(ge=1, le=10**15)]

TOKENS_BURST_S = 10.0
"""Without a burst of its own, a limit of tokens a second lets so many seconds' worth through at once."""


class Limit(Section):
    """What one subject may have. What is not given is not limited; of a key it is as for every key.

    Attributes:
        rate_per_s: Requests a second, for as long as one likes.
        burst: Requests at once after a rest; by default a second's worth.
        tokens_burst: Tokens at once after a rest, for `tokens_per_s`.
        concurrency: Requests in flight.
    """

    rate_per_s: PerSecond | None = None
    burst: Burst | None = None
    requests_per_day: Count | None = None
    tokens_per_s: TokensPerSecond | None = None
    tokens_burst: Count | None = None
    tokens_per_minute: Count | None = None
    tokens_per_day: Count | None = None
    concurrency: Count | None = None

    @model_validator(mode="after")
    def _bursts_of_something(self) -> Limit:
        if "burst" in self.model_fields_set and self.rate_per_s is None and type(self) is not KeyLimit:
            raise ValueError("`burst` belongs to `rate_per_s`")
        if self.tokens_burst is not None and self.tokens_per_s is None:
            raise ValueError("`tokens_burst` belongs to `tokens_per_s`")
        return self

    def rules(self, kind: Kind, setting: str) -> tuple[Rule, ...]:
        """The rules that these limits are; `setting` is where they stand in the configuration."""

        def rule(measure: str, form: Form, key: str, limit: float, **more: object) -> Rule:
            values: dict[str, object] = {"measure": measure, "form": form, "limit": limit, **more}
            return Rule(name=f"{kind}.{key}", kind=kind, setting=f"{setting}.{key}", **values)  # pyright: ignore[reportArgumentType]

        found: list[Rule] = []
        if (rate := self.rate_per_s) is not None:
            burst = self.burst or max(1.0, rate)
            found.append(rule("requests", RATE, "rate_per_s", burst, per_s=rate))
        if self.requests_per_day is not None:
            found.append(rule("requests", WINDOW, "requests_per_day", self.requests_per_day, period="day"))
        if self.concurrency is not None:
            found.append(rule("concurrency", SLOTS, "concurrency", self.concurrency))
        if (rate := self.tokens_per_s) is not None:
            burst = self.tokens_burst or rate * TOKENS_BURST_S
            found.append(rule("tokens", RATE, "tokens_per_s", burst, per_s=rate))
        if self.tokens_per_minute is not None:
            minute = self.tokens_per_minute
            found.append(rule("tokens", RATE, "tokens_per_minute", minute, per_s=minute / 60))
        if self.tokens_per_day is not None:
            found.append(rule("tokens", WINDOW, "tokens_per_day", self.tokens_per_day, period="day"))
        return tuple(found)


class KeyLimit(Limit):
    """The limits of one key: where it says nothing, those of every key hold."""


class LimitsConfig(Limit):
    """The limits of every key, and of single keys, users, teams and models.

    Attributes:
        keys: By id or name.
        users, teams, models: By name; `*` is each that has no entry.
        assumed_output_tokens: What an answer is taken to need until it is over, if the client sets no limit.
        on_outage: What to do while Redis is away: `local` limits, each gateway process its share, or `refuse`.
    """

    rate_per_s: PerSecond = 100.0  # pyright: ignore[reportIncompatibleVariableOverride]
    burst: Burst = 1000  # pyright: ignore[reportIncompatibleVariableOverride]
    keys: dict[str, KeyLimit] = {}
    users: dict[str, Limit] = {}
    teams: dict[str, Limit] = {}
    models: dict[str, Limit] = {}
    assumed_output_tokens: Annotated[int, Field(ge=1, le=1_000_000)] = 1024
    on_outage: Literal["local", "refuse"] = "local"

    @model_validator(mode="after")
    def _every_key_is_here(self) -> LimitsConfig:
        if "*" in self.keys:
            raise ValueError("`keys` names single keys; the limits of every key stand in `limits` itself")
        return self

    def of_key(self, name: str) -> Limit:
        """The limits of a key that has an entry, with those of every key where the entry says nothing."""
        given = self.keys[name]
        shared = {field: getattr(self, field) for field in Limit.model_fields}
        own = {field: getattr(given, field) for field in given.model_fields_set}
        if "rate_per_s" in own and "burst" not in own and own["rate_per_s"] != self.rate_per_s:
            shared["burst"] = None  # the burst of another rate
        return Limit.model_construct(**{**shared, **own})
