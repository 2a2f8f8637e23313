"""Texts that are made to take long: twice as much takes about twice as long, for every check."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from parkway.policy.guardrails.injection import Injection, InjectionOptions
from parkway.policy.guardrails.language import LanguageOptions, Languages
from parkway.policy.guardrails.pattern import PatternOptions, Patterns
from parkway.policy.guardrails.personal_data import PersonalData, PersonalDataOptions
from parkway.policy.guardrails.secrets import Secrets, SecretsOptions
from parkway.policy.guardrails.window import apply
from tests.policy.guardrails.test_window import ALL

HOSTILE = {
    "letters": "a",
    "dots": "a.",
    "at": "@",
    "local parts": "a@",
    "domains": "x@a-a.",
    "digits": "1",
    "digits and dashes": "1-",
    "groups": "4111 ",
    "open brackets": "((1",
    "colons": "a:",
    "hexadecimal": "1:a::",
    "account numbers": "DE12",
    "accounts in groups": "GB12 ABCD ",
    "passwords": "password ",
    "password signs": "password:password=",
    "names": "token_",
    "begin key": "-----BEGIN PRIVATE KEY-----",
    "dashes": "-",
    "tokens": "eyJ",
    "token parts": "eyJhbGciOiJIUzI1NiJ9.",
    "urls": "://a:",
    "orders": "ignore ",
    "orders in words": "ignore the the the the ",
    "send": "send data to ",
    "invisible": "\u200b",
    "tags": "\U000e0041a",
    "full width": "１",
    "spaces": " ",
    "newlines": "\n",
}

CHECKS: dict[str, Callable[[str], Any]] = {
    "personal_data": PersonalData(PersonalDataOptions()).find,
    "secrets": Secrets(SecretsOptions()).find,
    "prompt_injection": Injection(InjectionOptions()).find,
    "language": Languages(LanguageOptions(allow=["en"])).find,
    "pattern": Patterns(PatternOptions(patterns={"A": r"(\w+[ .@-]?)+!", "B": r"(a|1|a1)*x"})).find,
    "unsettled": ALL.unsettled,
    "all": lambda text: apply(ALL, text),
}

SMALL, LARGE = 2_000, 16_000


def seconds(work: Callable[[str], Any], text: str) -> float:
    """CPU of this thread; the lesser of two, because others use the machine, too."""
    spent = []
    for _ in range(2):
        start = time.thread_time()
        work(text)
        spent.append(time.thread_time() - start)
    return min(spent)


@pytest.mark.parametrize("check", CHECKS)
def test_hostile_texts_take_linear_time(check: str) -> None:
    work = CHECKS[check]
    for name, unit in HOSTILE.items():
        small, large = unit * (SMALL // len(unit)), unit * (LARGE // len(unit))
        least = max(seconds(work, small), 1e-4)
        # Quadratic would be 64 times.
        assert seconds(work, large) < 24 * least, name
