"""What is spent of every budget, as the store knows it, for people who look from outside."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from sqlalchemy import Connection, select

from parkway.policy.budgets import EACH, BudgetConfig
from parkway.policy.ledger import Spent, accounts
from parkway.policy.periods import end_of, start_of
from parkway.store import schema


class AccountState(msgspec.Struct, kw_only=True):
    """One limit of one budget for one subject. In tokens, or in US dollars where `unit` is `usd`.

    Attributes:
        subject: `*` where nobody has spent anything of a budget that each has for itself.
        name: What a key is called.
        renews_ms: Since 1970; None: never.
    """

    kind: str
    subject: str
    name: str | None
    period: str
    unit: str
    limit: float
    spent: float
    left: float
    hard: bool
    renews_ms: int | None


def states(connection: Connection, budgets: Sequence[BudgetConfig], now_ms: int) -> list[AccountState]:
    """Every budget with each of its subjects, those that have spent the greatest share first."""
    wanted = sorted({(budget.kind, budget.period, start_of(budget.period, now_ms)) for budget in budgets})
    spent = accounts(connection, wanted) if wanted else []
    names = dict(connection.execute(select(schema.keys.c.key_id, schema.keys.c.name)).all())
    found: list[AccountState] = []
    for budget in budgets:
        named = {other.subject for other in budgets if (other.kind, other.period) == (budget.kind, budget.period)}
        mine = [
            (account.subject, amounts)
            for account, amounts in spent
            if (account.kind, account.period) == (budget.kind, budget.period)
            and _is_of(account.subject, names.get(account.subject) if budget.kind == "key" else None, budget, named)
        ]
        for subject, amounts in mine or [(budget.subject, Spent(0, 0))]:
            name = names.get(subject) if budget.kind == "key" else None
            found += _states(budget, subject, name, amounts, now_ms)
    return sorted(found, key=lambda state: (-state.spent / state.limit, state.kind, state.subject))


def _is_of(subject: str, name: str | None, budget: BudgetConfig, named: set[str]) -> bool:
    """Whether an account is one of `budget`; that of each subject leaves out those that have one of their own."""
    if budget.subject == EACH:
        return subject not in named and name not in named
    return budget.subject in (subject, name)


def _states(budget: BudgetConfig, subject: str, name: str | None, spent: Spent, now_ms: int) -> list[AccountState]:
    listed: list[AccountState] = []
    for measure, limit in budget.limits():
        usd = measure == "micro_usd"
        unit = 1_000_000 if usd else 1
        amount = spent.micro_usd if usd else spent.tokens
        listed.append(
            AccountState(
                kind=budget.kind,
                subject=subject,
                name=name,
                period=budget.period,
                unit="usd" if usd else "tokens",
                limit=limit / unit,
                spent=amount / unit,
                left=max(0, limit - amount) / unit,
                hard=budget.hard,
                renews_ms=end_of(budget.period, start_of(budget.period, now_ms)),
            )
        )
    return listed
