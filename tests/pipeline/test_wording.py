"""Where the words are: the quick walk tells the same as the one that knows the way to each."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from parkway.pipeline.wording import MAX_DEPTH, plain_texts, words_in

KEYS = st.sampled_from(("role", "content", "text", "type", "name", "refusal", "function", "arguments", "more", ""))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=12,
)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(KEYS, VALUES, max_size=4))
def test_both_walks_find_the_same_words_in_the_same_order(holder: dict[str, Any]) -> None:
    words = list(words_in(holder))
    texts = plain_texts(holder)
    if any(each.json for each in words):
        assert texts is None
    else:
        assert texts == [each.text for each in words]


def test_what_is_nested_too_deeply_takes_a_closer_look() -> None:
    holder: dict[str, Any] = {"content": "deep"}
    for _ in range(MAX_DEPTH):
        holder = {"content": holder}
    assert plain_texts(holder) == ["deep"]
    assert plain_texts({"content": holder}) is None
