"""Budgets: how many tokens, or how much money, somebody may spend in a period."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from parkway.core.configuration import Section
from parkway.policy.periods import Period
from parkway.policy.rule import WINDOW, Kind, Measure, Rule

EACH = "*"


class BudgetConfig(Section):
    """One budget.

    Attributes:
        kind: Whose: of a `key`, a `user`, a `team`, a `model`; or of an `agent` or a `task`, as the client names them.
        subject: Which one: its name (a key also by its id), or `*`: each of them has this budget for itself.
        period: `day` and `month` begin at midnight UTC; `total` never begins anew.
        tokens: Of prompts and answers together.
        usd: By the models' prices.
        hard: Whether requests are refused once it is spent; if not, only a warning is logged.
        warn_at: The share of it at which the log has a warning.
    """

    kind: Kind
    subject: Annotated[str, Field(min_length=1, max_length=128)] = EACH
    period: Period = "month"
    tokens: Annotated[int, Field(ge=1, le=10**15)] | None = None
    usd: Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)] | None = None
    hard: bool = True
    warn_at: Annotated[float, Field(gt=0, le=1)] = 0.8

    @model_validator(mode="after")
    def _of_something(self) -> BudgetConfig:
        if self.tokens is None and self.usd is None:
            raise ValueError("a budget needs `tokens`, `usd` or both")
        return self

    def limits(self) -> list[tuple[Measure, int]]:
        """What it limits, in tokens and micro-dollars."""
        found: list[tuple[Measure, int]] = []
        if self.tokens is not None:
            found.append(("tokens", self.tokens))
        if self.usd is not None:
            found.append(("micro_usd", round(self.usd * 1_000_000)))
        return found

    def rules(self) -> tuple[Rule, ...]:
        """The rules that this budget is."""
        return tuple(
            Rule(
                name=counter_name(self.kind, self.period, measure),
                kind=self.kind,
                measure=measure,
                form=WINDOW,
                limit=limit,
                period=self.period,
                setting="budgets",
                budget=True,
                enters=number == 0,
                hard=self.hard,
                warn_at=self.warn_at,
            )
            for number, (measure, limit) in enumerate(self.limits())
        )


def counter_name(kind: str, period: str, measure: str) -> str:
    """The name of the counters of all budgets of one sort: what they count belongs to a subject, not to a budget."""
    return f"budget.{kind}.{period}.{measure}"


def check(budgets: list[BudgetConfig]) -> None:
    """Sees that no two budgets say different things about the same.

    Raises:
        ValueError: Two have the same kind, subject and period.
    """
    seen: set[tuple[str, str, str]] = set()
    for budget in budgets:
        what = (budget.kind, budget.subject, budget.period)
        if what in seen:
            raise ValueError(f"budgets: two for {budget.kind} {budget.subject!r} and period `{budget.period}`")
        seen.add(what)
