"""All guardrails of the configuration, and which of them apply to a request."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from parkway.core.errors import ConfigurationError
from parkway.policy.guardrails.check import Check
from parkway.policy.guardrails.config import Action, Direction, GuardrailConfig
from parkway.policy.guardrails.guard import Guard, Rule
from parkway.policy.guardrails.injection import Injection
from parkway.policy.guardrails.language import Languages
from parkway.policy.guardrails.pattern import Patterns
from parkway.policy.guardrails.personal_data import PersonalData
from parkway.policy.guardrails.secrets import Secrets
from parkway.policy.guardrails.size import Size
from parkway.policy.guardrails.topics import Embed, Topics

_CHECKS: dict[str, Callable[..., Check]] = {
    "personal_data": PersonalData,
    "secrets": Secrets,
    "prompt_injection": Injection,
    "size": Size,
    "language": Languages,
    "pattern": Patterns,
}

_MAX_KNOWN = 1024
_MAX_NAME_CHARS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What a guardrail has found in a request or an answer, for the audit log. Holds no word of either."""

    request_id: str
    key_id: str
    model: str
    direction: Direction
    guardrail: str
    check: str
    kind: str
    action: Action
    count: int


Audit = Callable[[Decision], None]
"""Takes a decision; must neither wait nor raise."""


class Guardrails:
    """The configured guardrails; `replace` puts others in force, all at once.

    Args:
        embed: What `topics` asks for vectors; without it that check cannot be configured.
        audit: Hears of every finding.
    """

    def __init__(
        self, config: Sequence[GuardrailConfig] = (), *, embed: Embed | None = None, audit: Audit | None = None
    ) -> None:
        self._embed = embed
        self.audit: Audit = audit or _nobody
        self._entries: tuple[tuple[GuardrailConfig, Rule], ...] = ()
        self._forms: list[str] = []
        self._guards: dict[tuple[Direction, frozenset[int]], Guard] = {}
        self._known: dict[tuple[Direction, str, str | None], Guard | None] = {}
        self.replace(config)

    @property
    def active(self) -> bool:
        """Whether there are any."""
        return bool(self._entries)

    def replace(self, config: Sequence[GuardrailConfig]) -> None:
        """Puts `config` in force for requests from now on; those that run keep what they began with.

        Raises:
            ConfigurationError: Two have the same name, or `topics` has nobody to ask. What was in force stays.
        """
        names = [entry.name for entry in config]
        for name in names:
            if names.count(name) > 1:
                raise ConfigurationError(f'guardrails: "{name}" is the name of two of them; give each its own')
        self._entries = tuple((entry, self._rule(rank, entry)) for rank, entry in enumerate(config))
        self._forms = [hashlib.sha256(entry.model_dump_json().encode()).hexdigest() for entry in config]
        self._guards = {}
        self._known = {}

    def guard(self, direction: Direction, model: str, team: str | None) -> Guard | None:
        """What applies to a request for `model` by a caller of `team`; None if nothing does."""
        subject = (direction, model, team)
        try:
            return self._known[subject]
        except KeyError:
            guard = self._applying(direction, model, team)
        if len(model) <= _MAX_NAME_CHARS:  # clients may ask for any
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            self._known[subject] = guard
        return guard

    def _applying(self, direction: Direction, model: str, team: str | None) -> Guard | None:
        ranks = frozenset(
            rule.rank
            for entry, rule in self._entries
            if entry.applies(direction)
            and (not entry.models or any(fnmatchcase(model, pattern) for pattern in entry.models))
            and (not entry.teams or team in entry.teams)
        )
        if not ranks:
            return None
        guard = self._guards.get((direction, ranks))
        if guard is None:
            if len(self._guards) >= _MAX_KNOWN:
                self._guards.clear()
            guard = Guard([rule for _, rule in self._entries if rule.rank in ranks])
            self._guards[direction, ranks] = guard
        return guard

    def fingerprint(self, model: str, team: str | None) -> str:
        """Equal only where the same guardrails look at the answers: who may see one of them may see the other."""
        guard = self.guard("output", model, team)
        return "" if guard is None else " ".join(self._forms[rule.rank] for rule in guard.rules)

    def _rule(self, rank: int, entry: GuardrailConfig) -> Rule:
        return Rule(rank, entry.name, entry.check, entry.action, self._check(entry), entry.hold_tokens)

    def _check(self, entry: GuardrailConfig) -> Check | Topics:
        if entry.check != "topics":
            return _CHECKS[entry.check](entry.options)
        if self._embed is None:
            raise ConfigurationError(f'guardrails: "{entry.name}": there is nothing here that embeds texts')
        return Topics(entry.options, self._embed)  # pyright: ignore[reportArgumentType] - its options, by its config


def _nobody(decision: Decision) -> None:
    """Where nobody keeps an audit log."""
