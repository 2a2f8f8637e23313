"""Prompts are read beside answers as fast as those who read the answers hardly notice."""

import pytest

from parkway.engine.pace import LEAST, STRETCH, Pace

ALONE_S, TOKEN_S = 0.080, 0.001


def rounded(rows: int) -> int:
    return rows


def measured(pace: Pace, rows: int = 4, token_s: float = TOKEN_S) -> Pace:
    """A pace that knows a machine on which a token of a prompt takes so long."""
    pace.took(rows, 0, ALONE_S)
    pace.took(rows, 10, ALONE_S + 10 * token_s)
    return pace


def test_at_first_answers_show_what_they_take_alone_and_then_a_little_is_read() -> None:
    pace = Pace(rounded)
    assert pace.most(4, 1, 256) == 0
    pace.took(4, 0, ALONE_S)
    assert pace.most(4, 1, 256) == LEAST
    assert pace.most(5, 1, 256) == 0  # of five nothing is known


def test_a_lone_prompt_makes_a_step_longer_by_a_bounded_part() -> None:
    pace = measured(Pace(rounded))
    tokens = pace.most(4, 1, 256)
    assert ALONE_S + tokens * TOKEN_S == pytest.approx(ALONE_S * STRETCH, abs=TOKEN_S)


def test_the_more_prompts_wait_the_more_is_read_up_to_the_budget() -> None:
    pace = measured(Pace(rounded))
    allowed = [pace.most(4, prompts, 256) for prompts in (1, 2, 3, 5, 9, 1000)]
    assert allowed == sorted(set(allowed)) or allowed[-2:] == [256, 256]
    assert allowed[-1] == 256


def test_however_slow_the_machine_a_prompt_is_read_on() -> None:
    assert measured(Pace(rounded), token_s=10.0).most(4, 1, 256) == LEAST
    assert measured(Pace(rounded), token_s=10.0).most(4, 1, 3) == 3


def test_a_step_that_was_quicker_than_possible_does_not_confuse_it() -> None:
    pace = Pace(rounded)
    pace.took(4, 0, ALONE_S)
    pace.took(4, 10, 0.0)
    assert pace.most(4, 1, 256) == 256


def test_it_follows_a_machine_that_becomes_slower() -> None:
    pace = measured(Pace(rounded))
    before = pace.most(4, 2, 256)
    for _ in range(20):
        pace.took(4, 10, ALONE_S + 10 * 4 * TOKEN_S)
    assert pace.most(4, 2, 256) == pytest.approx(before / 4, abs=1)


def test_now_and_then_answers_are_alone_again_to_be_measured() -> None:
    pace = measured(Pace(rounded))
    steps = 0
    while pace.most(4, 1, 256):
        pace.took(4, 8, ALONE_S + 8 * TOKEN_S)
        steps += 1
        assert steps < 1000
    pace.took(4, 0, 2 * ALONE_S)
    assert pace.most(4, 1, 256) > LEAST


def test_steps_without_answers_teach_nothing() -> None:
    pace = Pace(rounded)
    pace.took(0, 256, 1.0)
    assert pace.most(1, 1, 256) == 0
