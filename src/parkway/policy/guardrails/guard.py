"""The guardrails that apply to one text: all of them look at the original, and then it is decided once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from parkway.policy.guardrails.check import Check, Judge, Spotter
from parkway.policy.guardrails.config import Action
from parkway.policy.guardrails.finding import Finding
from parkway.policy.guardrails.topics import Topics

Found = Counter[tuple["Rule", str]]
"""How often which guardrail found something of which kind."""


@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """One guardrail, ready to use. `rank` is its place in the list: the first one names what several have found."""

    rank: int
    name: str
    check_name: str
    action: Action
    check: Check | Topics
    hold_tokens: int = 32


@dataclass(frozen=True, slots=True)
class Block:
    """Why a text does not pass."""

    rule: Rule
    kind: str


@dataclass(frozen=True, slots=True)
class Region:
    """A place to act on, in characters of a text; what several checks found there is one region."""

    start: int
    end: int
    rule: Rule
    kind: str


@dataclass(slots=True)
class Guarded:
    """What became of a text. `text` is the same object if nothing had to change."""

    text: str
    found: Found = field(default_factory=Counter)
    block: Block | None = None


class Guard:
    """The rules that apply to one direction of one request, in their order."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self.rules = tuple(rules)
        self.spotters: tuple[tuple[Rule, Spotter], ...] = tuple(
            (rule, rule.check) for rule in rules if isinstance(rule.check, Spotter)
        )
        self.judges: tuple[tuple[Rule, Judge], ...] = tuple(
            (rule, rule.check) for rule in rules if isinstance(rule.check, Judge)
        )
        self.topics: tuple[tuple[Rule, Topics], ...] = tuple(
            (rule, rule.check) for rule in rules if isinstance(rule.check, Topics)
        )

    @cached_property
    def for_orders(self) -> Guard:
        """The rules for what whoever runs the application tells the model: it cannot be an injection."""
        rules = [rule for rule in self.rules if rule.check_name != "prompt_injection"]
        return self if len(rules) == len(self.rules) else Guard(rules)

    @cached_property
    def changes(self) -> bool:
        """Whether anything may be redacted or blocked. What is only observed need not wait."""
        return any(rule.action != "observe" for rule in self.rules)

    @cached_property
    def hold_tokens(self) -> int:
        """The most that a stream is held back: the largest that one of the rules asks for."""
        return max((rule.hold_tokens for rule, _ in self.spotters), default=1)

    @cached_property
    def cost_ns(self) -> int:
        """CPU for a character."""
        return sum(check.cost_ns for _, check in (*self.spotters, *self.judges))

    @cached_property
    def _finders(self) -> tuple[Callable[[str], list[Finding]], ...]:
        return tuple(check.find for _, check in (*self.spotters, *self.judges))

    def passes(self, text: str) -> bool:
        """Whether neither a place in `text` nor the whole of it is anything to them. Topics are not asked."""
        for find in self._finders:  # noqa: SIM110 - most texts pass, and `all` would cost as much as the checks
            if find(text):
                return False
        return True

    def find(self, text: str) -> list[tuple[Rule, Finding]]:
        """All that the checks for places find in `text`."""
        return [(rule, finding) for rule, check in self.spotters for finding in check.find(text)]

    def unsettled(self, text: str) -> int:
        """From where on more text may make a difference to any of them."""
        return min((check.unsettled(text) for _, check in self.spotters), default=len(text))


def regions(findings: list[tuple[Rule, Finding]]) -> list[Region]:
    """Findings that overlap made one, from left to right. The first rule of the list gives the name."""
    merged: list[Region] = []
    ordered = sorted(findings, key=lambda pair: (pair[1].start, pair[0].rank, -pair[1].end))
    for rule, finding in ordered:
        last = merged[-1] if merged else None
        if last is None or finding.start >= last.end:
            merged.append(Region(finding.start, finding.end, rule, finding.kind))
            continue
        named, kind = (rule, finding.kind) if rule.rank < last.rule.rank else (last.rule, last.kind)
        merged[-1] = Region(last.start, max(last.end, finding.end), named, kind)
    return merged
