"""What is kept for whoever asks again: within bounds, made once, and gone at once when it has to be."""

from __future__ import annotations

import threading

import pytest

from parkway.core.tasks import start_thread
from parkway.retrieval.kept import Kept


def keep(kept: Kept[str], key: str, value: str) -> bool:
    """Whether it had to be made."""
    told, again = kept.of(key, lambda: (value, True))
    assert again or told == value
    return not again


def test_the_latest_are_kept_within_bounds() -> None:
    kept: Kept[str] = Kept(3, 10, len)
    assert [keep(kept, key, key) for key in "abca"] == [True, True, True, False]
    assert keep(kept, "d", "d"), "which is the fourth"
    assert [keep(kept, key, key) for key in "acd"] == [False, False, False]
    assert keep(kept, "long", "x" * 9)
    assert [keep(kept, key, key) for key in "da"] == [False, True], "there is room for one more"
    assert keep(kept, "too long", "x" * 11)
    assert keep(kept, "too long", "x" * 11)
    assert (kept.tally.hits, kept.tally.misses) == (5, 8)


def test_what_is_not_to_be_kept_is_made_again() -> None:
    kept: Kept[str] = Kept(3, 10, len)
    assert kept.of("a", lambda: ("a", False)) == ("a", False)
    assert keep(kept, "a", "b")


def test_who_asks_for_what_is_being_made_waits_for_it() -> None:
    kept: Kept[str] = Kept(3, 10, len)
    made, go, got = [0], threading.Event(), []

    def make() -> tuple[str, bool]:
        made[0] += 1
        assert go.wait(10)
        return "value", True

    threads = [start_thread(lambda: got.append(kept.of("a", make)), name="test/kept") for _ in range(8)]
    while kept.tally.hits < 7:
        threading.Event().wait(0.001)
    go.set()
    for thread in threads:
        thread.join(10)
    assert made == [1]
    assert sorted(got) == [("value", False), *[("value", True)] * 7]


def test_an_error_is_told_and_not_kept() -> None:
    kept: Kept[str] = Kept(3, 10, len)

    def fail() -> tuple[str, bool]:
        raise ValueError("no")

    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            kept.of("a", fail)
    assert keep(kept, "a", "a")


def test_what_was_being_made_when_all_was_forgotten_is_not_kept() -> None:
    kept: Kept[str] = Kept(3, 10, len)
    keep(kept, "a", "a")

    def make() -> tuple[str, bool]:
        kept.clear()
        return "b", True

    assert kept.of("b", make) == ("b", False)
    assert keep(kept, "a", "a")
    assert keep(kept, "b", "b")


def test_who_asks_after_all_was_forgotten_gets_nothing_from_before() -> None:
    kept: Kept[str] = Kept(3, 10, len)
    began, go, got = threading.Event(), threading.Event(), []

    def make() -> tuple[str, bool]:
        began.set()
        assert go.wait(10)
        return "old", True

    first = start_thread(lambda: got.append(kept.of("a", make)), name="test/kept")
    assert began.wait(10)
    kept.clear()
    asked: list[tuple[str, bool]] = []
    second = start_thread(lambda: asked.append(kept.of("a", lambda: ("new", True))), name="test/kept")
    second.join(10)
    go.set()
    first.join(10)
    assert asked == [("new", False)]
    assert got == [("old", False)]
    assert kept.of("a", lambda: ("newer", True)) == ("new", True)


def test_a_size_that_cannot_be_told_leaves_nobody_waiting() -> None:
    def bytes_of(value: str) -> int:
        raise ValueError(value)

    kept: Kept[str] = Kept(3, 10, bytes_of)
    for _ in range(2):
        with pytest.raises(ValueError, match="a"):
            kept.of("a", lambda: ("a", True))
