"""Stop strings, whatever the tokens do to them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parkway.engine.stop import StopMatcher

# Few letters, so that stop strings overlap with the text, with each other and with themselves.
LETTERS = st.text(alphabet="abé", max_size=40)
STOPS = st.lists(st.text(alphabet="abé", min_size=1, max_size=6), min_size=1, max_size=4)


def run(stops: list[str], pieces: list[str]) -> tuple[str, str | None]:
    matcher = StopMatcher(tuple(stops))
    text = "".join(matcher.feed(piece) for piece in pieces)
    return text + matcher.finish(), matcher.matched


def plainly(stops: list[str], text: str) -> tuple[str, str | None]:
    """The definition: the first end of a stop string; of several there, the longest."""
    for end in range(1, len(text) + 1):
        here = [stop for stop in stops if text[:end].endswith(stop)]
        if here:
            longest = max(here, key=len)
            return text[: end - len(longest)], longest
    return text, None


@given(STOPS, LETTERS)
def test_finds_what_the_definition_finds(stops: list[str], text: str) -> None:
    assert run(stops, [text]) == plainly(stops, text)


@given(STOPS, LETTERS, st.data())
def test_the_cut_into_pieces_changes_nothing(stops: list[str], text: str, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert run(stops, pieces) == plainly(stops, text)


@given(STOPS, LETTERS)
def test_no_more_is_held_back_than_could_become_a_stop_string(stops: list[str], text: str) -> None:
    matcher = StopMatcher(tuple(stops))
    released = ""
    for place, character in enumerate(text, start=1):
        released += matcher.feed(character)
        if matcher.matched is not None:
            return
        seen = text[:place]
        held = seen[len(released) :]
        assert seen == released + held
        open_ends = [seen[-n:] for n in range(1, place + 1) if any(s.startswith(seen[-n:]) for s in stops)]
        assert held == max(open_ends, key=len, default="")


def test_after_a_match_nothing_more_comes() -> None:
    matcher = StopMatcher(("END",))
    assert matcher.feed("abcENDdef") == "abc"
    assert matcher.feed("ghi") == ""
    assert matcher.finish() == ""
    assert matcher.matched == "END"


@pytest.mark.parametrize("stops", [(), ("",)])
def test_without_stop_strings_everything_passes_at_once(stops: tuple[str, ...]) -> None:
    assert StopMatcher(stops).feed("anything") == "anything"
