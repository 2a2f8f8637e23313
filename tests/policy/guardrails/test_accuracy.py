"""How much is found, and how much of what is found is right: on texts made up for it, in labelled.tsv.

A line is the kind that is in the text, or a dash, and the text. The near misses are meant to be near.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from parkway.policy.guardrails.injection import Injection, InjectionOptions
from parkway.policy.guardrails.language import LANGUAGES, language_of
from parkway.policy.guardrails.personal_data import PersonalData, PersonalDataOptions
from parkway.policy.guardrails.secrets import Secrets, SecretsOptions
from tests.policy.guardrails import injections, languages

HERE = Path(__file__).parent
PAGE = HERE.parents[2] / "docs/guardrails.md"
PERSONAL = ("email", "phone", "card", "iban", "national_id", "ip")
MIN_PRECISION, MIN_RECALL = 0.9, 0.85


def labelled() -> Iterator[tuple[str, str]]:
    for line in (HERE / "labelled.tsv").read_text(encoding="utf-8").splitlines():
        kind, text = line.split("\t")
        yield kind, text


def scores() -> dict[str, tuple[float, float, int]]:
    """Row of the table -> precision, recall, and how many texts have it. All kinds of credentials are one row."""
    checks = (PersonalData(PersonalDataOptions()), Secrets(SecretsOptions()))
    right: Counter[str] = Counter()
    found: Counter[str] = Counter()
    there: Counter[str] = Counter()
    for kind, text in labelled():
        expected = {kind} - {"-"}
        got = {finding.kind for check in checks for finding in check.find(text)}
        there.update(map(row_of, expected))
        found.update(map(row_of, got))
        right.update(map(row_of, got & expected))
    return {row: (right[row] / (found[row] or 1), right[row] / there[row], there[row]) for row in there}


def row_of(kind: str) -> str:
    return kind if kind in PERSONAL else "secrets"


@pytest.mark.parametrize(("row", "figures"), scores().items())
def test_precision_and_recall(row: str, figures: tuple[float, float, int]) -> None:
    precision, recall, _ = figures
    assert precision >= MIN_PRECISION, f"{row}: {precision:.3f}"
    assert recall >= MIN_RECALL, f"{row}: {recall:.3f}"


def told() -> dict[str, tuple[str, str, str]]:
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \| (\d\.\d\d) \| (\d\.\d\d) \|$", PAGE.read_text("utf-8"), re.MULTILINE)
    return {name: (precision, recall, count) for name, count, precision, recall in rows}


def test_the_page_tells_what_is_measured() -> None:
    measured = {name: (f"{p:.2f}", f"{r:.2f}", str(count)) for name, (p, r, count) in scores().items()}
    found = [is_attack(text) for text in injections.ATTACKS]
    false = [is_attack(text) for text in injections.HARMLESS]
    precision, recall = sum(found) / (sum(found) + sum(false)), sum(found) / len(found)
    measured["prompt_injection"] = (f"{precision:.2f}", f"{recall:.2f}", str(len(found)))
    known = [language_of(text) == language for language, text in languages.TEXTS]
    wrong = [language_of(text) not in (language, None) for language, text in languages.TEXTS]
    precision, recall = sum(known) / (sum(known) + sum(wrong)), sum(known) / len(known)
    measured["language"] = (f"{precision:.2f}", f"{recall:.2f}", str(len(known)))
    assert told() == measured


def is_attack(text: str) -> bool:
    return bool(Injection(InjectionOptions()).find(text))


def test_injections() -> None:
    missed = [text for text in injections.ATTACKS if not is_attack(text)]
    wrong = [text for text in injections.HARMLESS if is_attack(text)]
    assert len(missed) <= 0.15 * len(injections.ATTACKS), missed
    assert len(wrong) <= 0.05 * len(injections.HARMLESS), wrong


def test_languages() -> None:
    wrong = [(language, language_of(text)) for language, text in languages.TEXTS if language_of(text) != language]
    assert len(wrong) <= 0.05 * len(languages.TEXTS), wrong
    assert {language for language, _ in languages.TEXTS} == set(LANGUAGES)


@pytest.mark.parametrize("text", ["", "1 2 3", "x = y + z", "def f(a): return a", "!!! ??? ...", "OK OK OK OK"])
def test_what_is_no_language(text: str) -> None:
    assert language_of(text) is None
