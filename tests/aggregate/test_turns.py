"""Which turns go when a conversation is full."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parkway.aggregate.turns import first_kept

ROLES = {"s": "system", "d": "developer", "u": "user", "a": "assistant", "t": "tool"}


def left(conversation: str, *, added: int, max_messages: int = 1000, max_bytes: int = 10**9) -> str:
    """The letters that stay of a conversation in which every message has 10 bytes; `added` of them are new."""
    pinned, kept = first_kept(
        [ROLES[letter] for letter in conversation],
        [10] * len(conversation),
        added_from=len(conversation) - added,
        max_messages=max_messages,
        max_bytes=max_bytes,
    )
    return conversation[:pinned] + conversation[kept:]


@pytest.mark.parametrize(
    ("conversation", "max_messages", "stays"),
    [
        ("uauaua", 6, "uauaua"),
        ("uauaua", 5, "uaua"),
        ("uauaua", 4, "uaua"),
        ("uauaua", 2, "ua"),
        ("uauaua", 1, "ua"),  # what was just added always stays
        ("suauaua", 5, "suaua"),  # instructions at the start stay
        ("sduauaua", 4, "sdua"),
        ("uatauaua", 7, "uaua"),  # a turn with a tool goes as one
        ("uuauaua", 6, "uaua"),  # two user messages in a row are one turn
        ("uasuaua", 4, "uaua"),  # instructions that came later belong to their turn
        ("uatatata", 6, "ta"),  # one endless turn: only what is new
        ("aaaaaa", 4, "aa"),
        ("ssssua", 3, "ssssua"),
    ],
)
def test_whole_turns_go_oldest_first(conversation: str, max_messages: int, stays: str) -> None:
    assert left(conversation, added=2, max_messages=max_messages) == stays


def test_bytes_bound_as_messages_do() -> None:
    assert left("uauaua", added=2, max_bytes=60) == "uauaua"
    assert left("uauaua", added=2, max_bytes=59) == "uaua"
    assert left("suauaua", added=2, max_bytes=49) == "sua"


def test_the_first_turn_alone() -> None:
    assert left("sua", added=3, max_messages=1) == "sua"


@given(st.text("sduat", max_size=40), st.integers(1, 6), st.integers(1, 30), st.integers(10, 300))
def test_promises(conversation: str, added: int, max_messages: int, max_bytes: int) -> None:
    added = min(added, len(conversation))
    stays = left(conversation, added=added, max_messages=max_messages, max_bytes=max_bytes)
    new = conversation[len(conversation) - added :]
    old = conversation[: len(conversation) - added]
    pinned = len(old) - len(old.lstrip("sd"))
    assert stays.endswith(new)
    assert stays.startswith(old[:pinned])
    over = len(stays) > max_messages or len(stays) * 10 > max_bytes
    assert not over or len(stays) == pinned + added  # over the bounds only with what must stay
    if len(conversation) <= max_messages and len(conversation) * 10 <= max_bytes:
        assert stays == conversation
