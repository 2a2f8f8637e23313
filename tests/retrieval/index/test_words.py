"""Terms: the same for the same words, whoever writes them, and weights as BM25 has them."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parkway.retrieval.index.config import Language
from parkway.retrieval.index.words import AVERAGE_TERMS, K1, MASK, MAX_QUERY_TERMS, B, Words

ENGLISH = Words("english")


def common(words: Words, one: str, other: str) -> bool:
    return bool(set(words.of_query(one).indices) & set(words.of_passage(other).indices))


@pytest.mark.parametrize("language", get_args(Language))
def test_every_language_finds_its_words(language: str) -> None:
    words = Words(language)
    assert common(words, "Parkway", "about parkway: 北京")
    assert common(words, "北京", "about parkway: 北京")
    assert not common(words, "東京", "about parkway: 北京")


def test_endings_and_empty_words_are_those_of_the_language() -> None:
    assert common(ENGLISH, "running", "he runs")
    assert ENGLISH.of_query("the of and").indices == []
    assert common(Words("german"), "Häusern", "viele Häuser")
    assert Words("none").of_query("the").indices != []
    assert not common(Words("none"), "running", "he runs")


@pytest.mark.parametrize("number", ["4711", "2024", "14", "٣"])
def test_numbers_are_found(number: str) -> None:
    assert common(ENGLISH, number, f"error {number}, or 3.14; ERR-{number}")
    assert not common(ENGLISH, number, "error 99")


def test_weights_grow_with_repetition_and_shrink_with_length() -> None:
    def weight(text: str, word: str) -> float:
        terms = ENGLISH.of_passage(text)
        return dict(zip(terms.indices, terms.weights, strict=True))[ENGLISH.of_query(word).indices[0]]

    assert weight("cat", "cat") < weight("cat cat", "cat") < K1 + 1
    assert weight("cat " + "dog " * 300, "cat") < weight("cat dog", "cat")
    assert weight("7", "7") == pytest.approx((K1 + 1) / (1 + K1 * (1 - B + B * 0.5 / AVERAGE_TERMS)))


@given(st.text(max_size=200))
def test_any_text_has_terms_in_order(text: str) -> None:
    for terms in (ENGLISH.of_query(text), ENGLISH.of_passage(text)):
        assert terms.indices == sorted(set(terms.indices))
        assert all(0 <= index <= MASK for index in terms.indices)
        assert all(weight > 0 for weight in terms.weights)
        assert len(terms.indices) == len(terms.weights)


def test_a_query_is_bounded() -> None:
    assert len(ENGLISH.of_query(" ".join(str(number) for number in range(100_000))).indices) <= MAX_QUERY_TERMS
    assert ENGLISH.of_query("half a \ud800 character").indices != []


@pytest.mark.parametrize(
    ("passage", "query"),
    [
        ("the\u00a0kernel\u00a0reads", "kernel"),
        ("45\u202fkernel", "kernel"),
        ("a\u200bkernel", "kernel"),
        ("name=kernel", "kernel"),
        ("<kernel>", "kernel"),
        ("shell|kernel", "kernel"),
        ("$kernel", "kernel"),
        ("multi\u2011kernel", "kernel"),
        ("Donau\u00addampf\u00adschiff", "Donaudampfschiff"),
        ("\u200fkernel\u200e", "kernel"),
        ("kernel", "my\u00a0kernel"),
    ],
)
def test_words_are_found_whatever_stands_between_them(passage: str, query: str) -> None:
    for language in ("english", "german", "none"):
        words = Words(language)
        assert {*words.of_passage(passage).indices} & {*words.of_query(query).indices}
