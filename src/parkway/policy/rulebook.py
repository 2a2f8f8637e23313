"""The rulebook: which rules hold for a request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from parkway.policy.budgets import EACH, BudgetConfig
from parkway.policy.caller import Caller
from parkway.policy.limits import LimitsConfig
from parkway.policy.rule import KINDS, Charge, Kind, Rule

Rules = tuple[Rule, ...]

_MAX_REMEMBERED = 16_384
"""Parties whose rules need not be looked up again; one more, and all are forgotten."""


class Party(NamedTuple):
    """On whose account a request goes; the fields are in the order of `KINDS`, and `name` is the key's."""

    key: str
    user: str | None = None
    team: str | None = None
    model: str | None = None
    agent: str | None = None
    task: str | None = None
    name: str = ""

    @classmethod
    def of(cls, caller: Caller) -> Party:
        """The caller alone, before it is known what is asked for."""
        return cls(key=caller.key_id, user=caller.user, team=caller.team, name=caller.name)


@dataclass(frozen=True, slots=True)
class _Chapter:
    """The rules about one kind of subject: those of some by name, and those of all others."""

    kind: Kind
    named: Mapping[str, Rules]
    others: Rules

    def of(self, subject: str, alias: str) -> Rules:
        found = self.named.get(subject)
        if found is None and alias and self.kind == "key":
            found = self.named.get(alias)
        return self.others if found is None else found


class Rulebook:
    """All rules of a configuration, ready to be looked up; they never change."""

    def __init__(self, limits: LimitsConfig, budgets: Sequence[BudgetConfig] = ()) -> None:
        chapters = [*_limits(limits), *_budgets(budgets)]
        self._chapters = [
            (KINDS.index(chapter.kind), chapter) for chapter in chapters if chapter.named or chapter.others
        ]
        self._remembered: dict[Party, list[tuple[Rule, str]]] = {}
        self.budgets = tuple(budgets)
        self.kinds = frozenset(chapter.kind for _, chapter in self._chapters)

    def charges(self, party: Party, amounts: Mapping[str, float]) -> list[Charge]:
        """What a request is charged with; `amounts` are by measure, and what it does not have is not charged."""
        rules = self._remembered.get(party)
        if rules is None:
            rules = self._remember(party)
        return [Charge(rule, subject, amounts[rule.measure]) for rule, subject in rules if rule.measure in amounts]

    def budgets_of(self, party: Party) -> list[Charge]:
        """The budgets that hold for somebody, each as a charge of nothing."""
        charges = self.charges(party, {"tokens": 0, "micro_usd": 0})
        return [charge for charge in charges if charge.rule.budget]

    def _remember(self, party: Party) -> list[tuple[Rule, str]]:
        """The rules that hold for a party, each with whom of it they are about."""
        found: list[tuple[Rule, str]] = []
        for place, chapter in self._chapters:
            subject = party[place]
            if subject is not None:
                rules = chapter.of(subject, party.name) if chapter.named else chapter.others
                found += [(rule, subject) for rule in rules]
        if len(self._remembered) >= _MAX_REMEMBERED:
            self._remembered.clear()
        self._remembered[party] = found
        return found


def _limits(limits: LimitsConfig) -> list[_Chapter]:
    chapters = [
        _Chapter(
            "key",
            {name: limits.of_key(name).rules("key", f"limits.keys.{name}") for name in limits.keys},
            limits.rules("key", "limits"),
        )
    ]
    kinds: tuple[Kind, ...] = ("user", "team", "model")
    for kind in kinds:
        entries = getattr(limits, f"{kind}s")
        named = {name: entry.rules(kind, f"limits.{kind}s.{name}") for name, entry in entries.items()}
        others = named.pop(EACH, ())
        chapters.append(_Chapter(kind, named, others))
    return chapters


def _budgets(budgets: Sequence[BudgetConfig]) -> list[_Chapter]:
    """One chapter for each kind and period: a budget of one subject stands in the place of that of each."""
    chapters: list[_Chapter] = []
    for kind in KINDS:
        for period in ("day", "month", "total"):
            named = {
                budget.subject: budget.rules() for budget in budgets if (budget.kind, budget.period) == (kind, period)
            }
            others = named.pop(EACH, ())
            chapters.append(_Chapter(kind, named, others))
    return chapters
