"""Patterns mean after the rewriting what ECMA-262 says, and what cannot be rewritten is refused."""

import re

import pytest

from parkway.engine.pattern import MAX_PLACES, portable


@pytest.mark.parametrize(
    ("pattern", "matching", "other"),
    [
        (r"^\d$", ["7"], ["٣", "a"]),
        (r"^\D$", ["٣", "a"], ["7"]),
        (r"^\w$", ["_", "Z"], ["é", "-"]),
        (r"^\W$", ["é", "-"], ["_"]),
        (r"^\s$", [" ", "\u2028", "\ufeff"], ["\u001c", "a"]),
        (r"^\S$", ["\u001c", "a"], ["\u2028"]),
        (r"^[\w.-]+$", ["a.b-c"], ["é"]),
        (r"^[^\s,]+$", ["ab"], ["a b", "a,b"]),
        ("^.$", ["a", "🙂"], ["\n", "\r", "\u2028"]),
        ("^[[]$", ["["], ["]"]),
        ("^[a&&b]$", ["&", "a"], ["c"]),
        (r"^\/\-\@$", ["/-@"], [r"\/"]),
        (r"^\x41\u00e9$", ["Aé"], ["A"]),
        (r"^[\b]$", ["\b"], ["b"]),
        ("^a{2,3}$", ["aa", "aaa"], ["a", "aaaa"]),
        ("^a{,3}$", ["a{,3}"], ["aa"]),
        ("^(?<year>a)(?P<x>b)$", ["ab"], ["a"]),
        ("^x{1}}$", ["x}"], ["x"]),
    ],
)
def test_meaning(pattern: str, matching: list[str], other: list[str]):
    rewritten = portable(pattern)
    for text in matching:
        assert re.search(rewritten, text)
    for text in other:
        assert not re.search(rewritten, text)


@pytest.mark.parametrize(
    "pattern",
    ["(?=a)", "(?!a)", "(?<=a)b", "(?i)a", r"(a)\1", r"\bword", r"\p{L}", r"\cA", r"\k<x>", "[]", "[^]", "[+--]", "(",
     ")", "[a", "a**", "*a", "\\", r"[\D]", r"\ud800", f"(a{{{MAX_PLACES}}}){{2}}", "a{99999999999}", r"\12"],
)  # fmt: skip
def test_refused(pattern: str):
    with pytest.raises(ValueError):
        portable(pattern)
