"""Guessing from what was written before."""

from parkway.engine.speculation import MOST_GUESSES, Lookup


def test_a_text_is_expected_to_go_on_as_it_did_last_time() -> None:
    assert Lookup().guess([1, 2, 3, 4, 5, 1, 2, 3], 8) == [4, 5, 1, 2]
    assert Lookup().guess([1, 2, 3, 9, 1, 2, 3, 4, 1, 2, 3], 1) == [4]  # the latest place counts
    assert Lookup().guess([7, 7, 7, 7], 4) == [7, 7, 7, 7]


def test_what_never_came_before_suggests_nothing() -> None:
    assert Lookup().guess([1, 2, 3, 4, 5, 6], 8) == []
    assert Lookup().guess([1, 2], 8) == []
    assert Lookup().guess([], 8) == []
    assert Lookup().guess([1, 2, 3, 4, 1, 2, 3], 0) == []


def test_places_are_found_as_the_text_grows() -> None:
    lookup = Lookup()
    tokens = [7, 8, 9]
    assert lookup.guess(tokens, 4) == []
    tokens += [1, 7, 8, 9]
    assert lookup.guess(tokens, 4) == [1, 7, 8, 9]


def test_right_guesses_make_more_and_wrong_ones_fewer_until_it_pauses() -> None:
    lookup = Lookup()
    tokens = [1, 2, 3] * 40
    assert len(lookup.guess(tokens, 99)) == 4
    lookup.told(4, 4, len(tokens))
    assert len(lookup.guess(tokens, 99)) == MOST_GUESSES == 8
    for expected in (4, 2, 1):
        lookup.told(8, 0, len(tokens))
        assert len(lookup.guess(tokens, 99)) == expected
    lookup.told(1, 0, len(tokens))
    assert lookup.guess(tokens, 99) == []
    assert lookup.guess(tokens + [1, 2, 3] * 5, 99) == []
    assert lookup.guess(tokens + [1, 2, 3] * 6, 99) == [1]
    lookup.told(1, 0, len(tokens) + 18)
    assert lookup.guess(tokens + [1, 2, 3] * 16, 99) == []  # the second pause is longer
    assert lookup.guess(tokens + [1, 2, 3] * 17, 99) == [1]
