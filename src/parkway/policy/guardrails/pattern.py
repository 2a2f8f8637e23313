"""An operator's own patterns."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints

from parkway.core.configuration import Section
from parkway.policy.guardrails.automaton import Automaton
from parkway.policy.guardrails.finding import Finding


def _compiles(pattern: str) -> str:
    Automaton(pattern)
    return pattern


KindName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,31}$")]
Pattern = Annotated[str, StringConstraints(min_length=1, max_length=1000), AfterValidator(_compiles)]


class PatternOptions(Section):
    """Regular expressions.

    Attributes:
        patterns: Kind -> expression. What matches is called by the kind: `[TICKET]`.
        ignore_case: Whether capital and small letters are the same.
    """

    patterns: Annotated[dict[KindName, Pattern], Field(min_length=1, max_length=64)]
    ignore_case: bool = False


class Patterns:
    """Finds what the patterns match, in time that is proportional to the text for every pattern."""

    def __init__(self, options: PatternOptions) -> None:
        self._automata = {
            kind: Automaton(pattern, ignore_case=options.ignore_case) for kind, pattern in options.patterns.items()
        }
        self.cost_ns = 150 * len(self._automata)

    def find(self, text: str) -> list[Finding]:
        return [
            Finding(start, end, kind)
            for kind, automaton in self._automata.items()
            for start, end in automaton.spans(text)
        ]

    def unsettled(self, text: str) -> int:
        return min(automaton.unsettled(text) for automaton in self._automata.values())

    def rest(self, kind: str, text: str) -> tuple[int, bool]:  # noqa: ARG002 - the next look says whether more belongs to it
        return 0, False
