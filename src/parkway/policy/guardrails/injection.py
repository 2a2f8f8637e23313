"""Prompt injection: phrases and tricks by which a text tries to give orders to the model. A heuristic, and no wall.

Sources of the signals: OWASP Top 10 for LLM applications 2025, LLM01; Perez and Ribeiro, "Ignore Previous Prompt"
(2022); Greshake et al., "Not what you've signed up for" (2023), on what tools bring in; Liu et al., "Prompt injection
attack against LLM-integrated applications" (2023), on separators; Boucher et al., "Bad Characters" (2021), on
characters that nobody sees. Each signal is a probability of its own; together they are 1 - (1 - a)(1 - b)...
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import Field

from parkway.core.configuration import Section
from parkway.policy.guardrails.finding import Finding
from parkway.policy.guardrails.whole import GrowingText


class InjectionOptions(Section):
    """From which score on a text counts as an attempt; 0.6 is one clear order, or two hints."""

    threshold: float = Field(default=0.6, gt=0, le=1)


@dataclass(frozen=True, slots=True)
class _Signal:
    kind: str
    weight: float
    literals: tuple[str, ...]
    pattern: re.Pattern[str]


_W = r"(?:\w{1,24}\W{1,3})"  # a word and what divides it from the next; bounded, so that every step is forced


def _signal(kind: str, weight: float, literals: str, pattern: str) -> _Signal:
    return _Signal(kind, weight, tuple(literals.split("|")), re.compile(pattern))


_OVERRIDDEN = (
    r"(?:instruct\w{0,8}|prompts?|rules?|guidelines?|directives?|commands?|training|polic(?:y|ies)|restrictions?|"
    r"constraints?|messages?|filters?|safeguards?)\b"
)
_UNBOUND = r"(?:rules|restrictions|limits|filters?|limitations)"
_LOOT = (
    r"(?:conversation|history|credentials?|passwords?|api keys?|secrets?|tokens?|data|contents?|files?|messages?|"
    r"emails?|inbox|chat)"
)

_SIGNALS = (
    _signal(
        "override", 0.7, "ignor|disregard|forget|override|bypass|do not follow|don't follow|stop following",
        r"\b(?:ignor(?:e|ing)|disregard|forget|override|bypass|(?:do not|don't|stop) follow(?:ing)?)\W{1,3}"
        rf"{_W}{{0,4}}?(?:previous|prior|above|earlier|preceding|existing|initial|original|all|any|your|system|safety|"
        rf"these|those)\W{{1,3}}{_W}{{0,3}}?{_OVERRIDDEN}",
    ),
    _signal(
        "override", 0.7, "ignor|vergiss|missacht|oubli|olvid|dimentica|negeer|zignoruj|игнорир",
        r"\b(?:ignorier\w{0,3}|vergiss|missachte|ignore[zr]?|oublie[zr]?|ignora|olvida|ignorar?|dimentica|negeer|"
        rf"zignoruj|игнорируй)\W{{1,3}}{_W}{{0,3}}?(?:anweisung\w{{0,3}}|regeln|vorgaben|consignes?|instructions?|"
        r"règles|instrucciones|reglas|órdenes|istruzioni|instruções|instructies|instrukcje|инструкции)\b",
    ),
    _signal(
        "role", 0.5, "you are now|from now on|pretend|act as|roleplay|simulate",
        r"\b(?:you are now|from now on,? you|pretend (?:to be|that you|you are)|act as|roleplay as|simulate)\W{1,3}"
        rf"{_W}{{0,6}}?(?:dan|unrestricted|unfiltered|uncensored|jailbroken|evil|developer mode|root|"
        rf"no {_UNBOUND}|without (?:any )?{_UNBOUND}|do anything now|not bound|jailbreak)\b",
    ),
    _signal(
        "jailbreak", 0.5, "jailbreak|do anything now|developer mode|dan mode|god mode|no restrictions|unfiltered",
        r"\b(?:jailbreak mode|do anything now|developer mode (?:enabled|on|activated)|dan mode|god mode|"
        r"you have no restrictions|respond unfiltered)\b",
    ),
    _signal(
        "extraction", 0.6, "system prompt|initial prompt|hidden prompt|instructions|system message",
        r"\b(?:reveal|print|show|repeat|output|display|leak|dump|recite|tell me|what (?:is|are|were)|give me|copy)"
        rf"\W{{1,3}}{_W}{{0,4}}?(?:your|the)\W{{1,3}}{_W}{{0,2}}?(?:system (?:prompt|message|instructions)|"
        r"(?:initial|hidden) (?:prompt|instructions)|original instructions|"
        r"instructions (?:above|verbatim|word for word))\b",
    ),
    _signal(
        "extraction", 0.6, "everything above|text above|words above|all above",
        r"\b(?:repeat|print|output|copy|translate)\W{1,3}(?:\w{1,12}\W{1,3}){0,3}(?:everything|text|words|all) above\b",
    ),
    _signal(
        "delimiter", 0.6,
        "<|im_|[inst]|[/inst]|<<sys>>|<|system|<|start_header|### system|## system|#### system|</system|<system>|"
        "[system]|end of",
        r"<\|im_(?:start|end)\|>|\[/?inst\]|<<sys>>|<\|(?:system|start_header_id)\|>|(?:^|\n)#{2,4} ?system\b|"
        r"</?system>|\[system\]|-{3,10} ?end of (?:the )?(?:system )?prompt",
    ),
    _signal(
        "concealment", 0.5, "tell|mention|inform|reveal|show",
        r"\b(?:(?:do not|don't|never) (?:tell|mention|inform|reveal|show)|without (?:telling|informing)) "
        r"(?:this to |it to |about this to )?(?:the user|anyone|the human|them)\b",
    ),
    _signal(
        "exfiltration", 0.6, "http|@|webhook",
        r"\b(?:send|forward|post|upload|email|exfiltrate|transmit|append)\W{1,3}"
        rf"{_W}{{0,8}}?{_LOOT}\W{{1,3}}{_W}{{0,6}}?(?:to|at|via)\W{{1,3}}{_W}{{0,3}}?(?:https?\b|\S{{1,40}}@)",
    ),
    _signal(
        "new_orders", 0.4, "instruction|task|order|attention|system override|system update",
        r"\b(?:new|updated|important|real|actual) (?:instructions?|task|orders?)(?: (?:for|from) \w{1,16})?\s?:|"
        r"\battention,? (?:ai|assistant|model|llm)\b|\bsystem (?:override|update)\b",
    ),
)  # fmt: skip

_TAGS = re.compile("[\U000e0000-\U000e007f]{4}")  # ASCII that nobody sees: Unicode's tag characters
_INVISIBLE = re.compile("[\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff\u00ad]")
_MANY_INVISIBLE = 8

_SLICE, _OVERLAP = 8192, 512


class Injection:
    """Finds orders in a text that ought to be data: the words of users, and what tools bring in."""

    cost_ns = 60

    def __init__(self, options: InjectionOptions) -> None:
        self._options = options

    def find(self, text: str) -> list[Finding]:
        """The clearest signal, with the score of all together, if that reaches the threshold."""
        strongest: dict[str, float] = {}
        for kind, weight in _signals_in(text):
            strongest[kind] = max(weight, strongest.get(kind, 0.0))
        innocent = 1.0
        for weight in strongest.values():
            innocent *= 1 - weight
        score = round(1 - innocent, 3)
        if score < self._options.threshold:
            return []
        clearest = max(strongest, key=lambda kind: strongest[kind])
        return [Finding(0, len(text), clearest, score)]

    def meter(self) -> GrowingText:
        return GrowingText(self.find)


def _signals_in(text: str) -> Iterator[tuple[str, float]]:
    if not text.isascii():
        if _TAGS.search(text):
            yield "invisible", 0.9
        hidden = len(_INVISIBLE.findall(text))
        if hidden >= _MANY_INVISIBLE and hidden * 20 > len(text):
            yield "invisible", 0.6
    for at in range(0, max(1, len(text)), _SLICE):
        part = _plain(text[max(0, at - _OVERLAP) : at + _SLICE])
        for signal in _SIGNALS:
            if any(literal in part for literal in signal.literals) and signal.pattern.search(part):
                yield signal.kind, signal.weight


def _plain(text: str) -> str:
    """Lower case, compatible forms made one (full-width letters and the like), what nobody sees left out."""
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFKC", _INVISIBLE.sub("", text)).lower()
