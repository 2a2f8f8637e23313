"""Credentials: keys of known providers by their form, and whatever stands behind a name such as `password`.

Forms: the providers' own documentation, and the rules of gitleaks (https://github.com/gitleaks/gitleaks). Each rule is
tried only where the literal that no such key can do without is in the text.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import Field

from parkway.core.configuration import Section
from parkway.policy.guardrails.check import last_word, rest_of_word
from parkway.policy.guardrails.finding import Finding


class SecretsOptions(Section):
    """How sure the check must be of what only looks random.

    Attributes:
        context: Whether values behind names such as `password` and `token` are looked at, too.
        min_entropy_bits: Of a character of such a value, by Shannon's formula; 3.0 lets words pass.
    """

    context: bool = True
    min_entropy_bits: float = Field(default=3.0, ge=0, le=8, allow_inf_nan=False)


@dataclass(frozen=True, slots=True)
class _Rule:
    kind: str
    literals: tuple[str, ...]
    pattern: re.Pattern[str]


def _rule(kind: str, literals: str, pattern: str) -> _Rule:
    return _Rule(kind, tuple(literals.split()), re.compile(rf"(?<![A-Za-z0-9_]){pattern}"))


def _sign_of(rule: _Rule) -> str:
    """A rare character, or else a literal, without which the rule finds nothing."""
    signs = [sign for sign in "_-" if all(sign in literal for literal in rule.literals)]
    return signs[0] if signs else rule.literals[0] if len(rule.literals) == 1 else ""


# Every quantifier is bounded or the last one, so that no text makes one slow.
_RULES = (
    _rule("parkway_key", "pk-", r"pk-[a-z0-9]{12}-[A-Za-z0-9]{43}"),
    _rule("anthropic_key", "sk-ant-", r"sk-ant-[A-Za-z0-9_-]{16,}"),
    _rule("openai_key", "sk-", r"sk-(?!ant-)(?:proj-|svcacct-|admin-)?[A-Za-z0-9_-]{20,}"),
    _rule("aws_access_key", "AKIA ASIA ABIA ACCA", r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}(?![A-Za-z0-9])"),
    _rule("github_token", "ghp_ gho_ ghu_ ghs_ ghr_ github_pat_", r"(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{22,})"),
    _rule("gitlab_token", "glpat- gldt- glrt-", r"gl(?:pat|dt|rt)-[A-Za-z0-9_-]{20,}"),
    _rule(
        "slack_token", "xoxa- xoxb- xoxe- xoxo- xoxp- xoxr- xoxs- xapp-", r"(?:xox[abeoprs]-|xapp-)[A-Za-z0-9-]{10,}"
    ),
    _rule("slack_webhook", "hooks.slack.com/", r"hooks\.slack\.com/(?:services|workflows)/[A-Za-z0-9/_+-]{20,}"),
    _rule("google_key", "AIza ya29.", r"(?:AIza[A-Za-z0-9_-]{35}|ya29\.[A-Za-z0-9_-]{20,})"),
    _rule("stripe_key", "_live_ _test_ whsec_", r"(?:(?:sk|rk)_(?:live|test)_[A-Za-z0-9]{16,}|whsec_[A-Za-z0-9]{24,})"),
    _rule("huggingface_token", "hf_", r"hf_[A-Za-z0-9]{30,}"),
    _rule("npm_token", "npm_", r"npm_[A-Za-z0-9]{36}"),
    _rule("pypi_token", "pypi-", r"pypi-AgEI[A-Za-z0-9_-]{40,}"),
    _rule("sendgrid_key", "SG.", r"SG\.[A-Za-z0-9_-]{16,32}\.[A-Za-z0-9_-]{16,}"),
    _rule("digitalocean_token", "doo_v1_ dop_v1_ dor_v1_", r"do[opr]_v1_[a-f0-9]{64}"),
    _rule("telegram_token", ":AA", r"\d{8,10}:AA[A-Za-z0-9_-]{32,33}"),
    _rule("azure_key", "AccountKey=", r"AccountKey=[A-Za-z0-9+/]{40,}={0,2}"),
    _rule("jwt", "eyJ", r"eyJ[A-Za-z0-9_-]{12,}\.[A-Za-z0-9_-]{4,}(?:\.[A-Za-z0-9_-]*)?"),
    _Rule(
        "password_in_url",
        ("://",),
        re.compile(r"(?<=://)[^\s:/@\"'<>]{0,64}:[^\s:/@\"'<>$*{]{3,128}(?=@[\w.-])"),
    ),
    _Rule(
        "private_key",
        ("PRIVATE KEY",),
        re.compile(
            r"-----BEGIN (?:[A-Z]{1,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----"
            r"(?:[^-]|-(?!----)){0,16384}(?:-----END [A-Z ]{0,40}KEY(?: BLOCK)?-----)?"
        ),
    ),
)

# To look for one character is much quicker than to look for a word.
_BY_SIGN = tuple(
    (sign, tuple(rule for rule in _RULES if _sign_of(rule) == sign))
    for sign in sorted({_sign_of(rule) for rule in _RULES})
)

_NAMES = ("passw", "pwd", "passphrase", "secret", "token", "key", "authorization", "credential")
# The name, at most a few signs, the value. Between them nothing that could be read in two ways.
_ASSIGNED = re.compile(
    r"(?:password|passwd|pwd|passphrase|secret|token|api[_ -]?key|access[_-]key|private_key|authorization|credential)"
    r"[\w-]{0,16}[\"'`\]]{0,2}\s?\s?(?:[:=]|=>|:=|\bis\b)\s?\s?[\"'`]?(?:bearer |basic )?"
    r"(?P<value>[^\s\"'`,;<>(){}\[\]]{8,200})",
    re.IGNORECASE,
)
_PLACEHOLDER = re.compile(
    r"your|example|change|placeholder|redacted|xxx|\*\*\*|\.\.\.|^\$|^%|env|dummy|sample|hidden|^<|none$|null$|true$|false$",
    re.IGNORECASE,
)
_END = re.compile(r"-----END [A-Z ]{0,40}KEY(?: BLOCK)?-----")
_END_CHARS = 64


class Secrets:
    """Finds credentials."""

    cost_ns = 25

    def __init__(self, options: SecretsOptions) -> None:
        self._options = options

    def find(self, text: str) -> list[Finding]:
        found = [
            Finding(*match.span(), rule.kind)
            for sign, rules in _BY_SIGN
            if sign in text
            for rule in rules
            if any(literal in text for literal in rule.literals)
            for match in rule.pattern.finditer(text)
        ]
        if self._options.context and (":" in text or "=" in text or " is " in text):
            lowered = text.lower()
            if any(name in lowered for name in _NAMES):
                found.extend(self._assigned(text, found))
        return found

    def _assigned(self, text: str, known: list[Finding]) -> Iterator[Finding]:
        for match in _ASSIGNED.finditer(text):
            start, end = match.span("value")
            if any(each.start < end and start < each.end for each in known):
                continue
            end = start + len(text[start:end].rstrip(".!?"))
            if self._is_random(text[start:end]):
                yield Finding(start, end, "secret", 0.8)

    def _is_random(self, value: str) -> bool:
        """Whether it is neither a word nor something that stands for a secret."""
        if len(value) < 8 or _PLACEHOLDER.search(value) or value.startswith(("http", "/", "./")):
            return False
        letters = sum(char.isalpha() for char in value)
        others = len(value) - letters
        mixed = letters > 0 and any(char.isdigit() for char in value)
        long_digits = letters == 0 and others >= 12
        return (mixed or long_digits) and entropy_bits(value) >= min(
            self._options.min_entropy_bits, 0.8 * math.log2(len(value))
        )

    def unsettled(self, text: str) -> int:
        """The last word; an open private key from its beginning on."""
        place = last_word(text)
        begin = text.rfind("-----BEGIN ", max(0, len(text) - 20_000))
        if begin >= 0 and _END.search(text, begin) is None:
            return min(place, begin)
        return place

    def rest(self, kind: str, text: str) -> tuple[int, bool]:
        if kind != "private_key":
            return rest_of_word(text)
        end = _END.search(text)
        if end is not None:
            return end.end(), False
        return max(0, len(text) - _END_CHARS), True


def entropy_bits(text: str) -> float:
    """Shannon's entropy of the characters of `text`, in bits for each."""
    total = len(text)
    return -sum(count / total * math.log2(count / total) for count in Counter(text).values())
