"""Patterns in linear time: as `re` finds them where both can, and refused where only `re` could."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parkway.policy.guardrails.automaton import Automaton

ATOMS = ("a", "b", "[ab]", "[^a]", ".", r"\d", r"\w", "ab", "(?:a|b)", "(?:ab|ba)", "[0-9]")


@st.composite
def patterns(draw: st.DrawFn) -> str:
    parts = draw(
        st.lists(
            st.tuples(st.sampled_from(ATOMS), st.sampled_from(["", "", "", "?", "*", "+", "{2}", "{1,3}", "{0,2}"])),
            min_size=1,
            max_size=4,
        )
    )
    return "".join(
        f"(?:{atom}){times}" if len(atom) > 1 and not atom.startswith(("[", "\\")) else atom + times
        for atom, times in parts
    )


def covered(pattern: str, text: str) -> set[int]:
    """The characters that are in any match of any length, by trying all of them."""
    compiled = re.compile(pattern)
    places: set[int] = set()
    for start in range(len(text)):
        for end in range(start + 1, len(text) + 1):
            if compiled.fullmatch(text, start, end):
                places |= set(range(start, end))
    return places


@given(patterns(), st.text(alphabet="ab1 \n", max_size=14))
@settings(max_examples=120, deadline=None)
def test_finds_what_any_reading_of_the_pattern_matches(pattern: str, text: str) -> None:
    if re.fullmatch(pattern, ""):
        with pytest.raises(ValueError, match="empty text"):
            Automaton(pattern)
        return
    automaton = Automaton(pattern)
    spans = automaton.spans(text)
    assert {place for start, end in spans for place in range(start, end)} == covered(pattern, text)
    assert all(before[1] <= after[0] for before, after in pairwise(spans))


@given(patterns(), st.text(alphabet="ab1 ", max_size=12), st.text(alphabet="ab1 ", max_size=6))
@settings(max_examples=80, deadline=None)
def test_nothing_that_follows_reaches_over_what_is_settled(pattern: str, text: str, more: str) -> None:
    if re.fullmatch(pattern, ""):
        return
    for form in (pattern, rf"\b{pattern}\b"):
        automaton = Automaton(form)
        settled = automaton.unsettled(text)
        assert not any(start < settled < end for start, end in automaton.spans(text + more))
        before = [span for span in automaton.spans(text) if span[1] <= settled]
        assert before == [span for span in automaton.spans(text + more) if span[1] <= settled]


def test_boundaries_case_and_classes() -> None:
    assert Automaton(r"\bfoo\b").spans("foo food xfoo foo.") == [(0, 3), (14, 17)]
    assert Automaton("straße", ignore_case=True).spans("STRAßE und Straße") == [(0, 6), (11, 17)]
    assert Automaton(r"(?i)tck-\d+").spans("TCK-12, tck-3") == [(0, 6), (8, 13)]
    assert Automaton(r"[^\s,]+@x").spans("a, b@x") == [(3, 6)]
    assert Automaton(r"(?s)<.*?>").spans("<a\nb>") == [(0, 5)]


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("(", "not a regular expression"),
        (r"(a)\1", "backreferences"),
        ("(?=a)b", "looking ahead"),
        ("(?<!a)b", "looking ahead"),
        ("^a", "come"),
        ("a$", "come"),
        (r"a\bb", "come"),
        ("a*", "empty text"),
        ("(?:a|)", "empty text"),
        ("a{2000}", "at most"),
        ("(?:a{100}){100}", "longer than"),
        ("(?m)a", "flags"),
        ("(?>a)b", "atomic"),
    ],
)
def test_what_is_refused_says_why(pattern: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Automaton(pattern)


class Counting(str):
    """Counts the looks at each of its characters: what a search costs, whatever the machine does beside it."""

    looks: int

    def __new__(cls, value: str) -> Counting:
        made = super().__new__(cls, value)
        made.looks = 0
        return made

    def __iter__(self) -> Any:
        for char in str(self):
            self.looks += 1
            yield char

    def __getitem__(self, key: Any) -> str:
        self.looks += 1
        return str(self)[key]


@pytest.mark.parametrize("pattern", [r"(a+)+b", r"(a|a)*b", r"(a|aa)+c", r"\w*\w*\w*x", r"(.*)*z", r"a?{0}a*b"])
@pytest.mark.parametrize("text", ["a" * 20_000, "a" * 20_000 + "b", "ab" * 10_000])
def test_what_makes_other_engines_explode_is_looked_at_once(pattern: str, text: str) -> None:
    try:
        automaton = Automaton(pattern)
    except ValueError:
        return
    counting = Counting(text)
    automaton.spans(counting)
    assert counting.looks <= 2 * len(text)
    assert len(automaton._after) < 50
    assert len(automaton._before) < 50
