"""The threshold of confidence."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from parkway.retrieval.calibration import Calibration, table
from parkway.retrieval.evaluation import Results


def results(answerable: list[float], others: list[float]) -> Results:
    measure = np.array([1.0] * len(answerable) + [np.nan] * len(others))
    return Results({"nDCG@10": measure}, np.array(answerable + others), {})


def test_the_threshold_lies_between_both_kinds() -> None:
    found = Calibration.of(results([0.6, 0.7, 0.9] * 7, [0.1, 0.2, 0.3] * 7))
    assert found is not None
    assert found.told_apart == 1.0
    assert found.recommended == pytest.approx(0.46)
    assert (found.answered(0.65).mean, found.false_answers(0.15).mean) == pytest.approx((2 / 3, 2 / 3))


def test_few_that_are_wrong_do_not_move_it() -> None:
    found = Calibration.of(results([0.8] * 98 + [0.1, 0.2], [0.3] * 97 + [0.95] * 3))
    assert found is not None
    assert found.recommended is not None
    assert 0.3 < found.recommended <= 0.8
    told = table(found, [found.recommended])
    assert "| 0.40 | 98% (95% to 100%) | 3% (0% to 7%) |" in told
    assert told.count("\n") == 11


def test_of_few_questions_no_threshold_follows() -> None:
    found = Calibration.of(results([0.9] * 50, [0.1] * 19))
    assert found is not None
    assert found.told_apart == 1.0
    assert found.recommended is None


def test_many_questions_are_not_compared_each_with_each_at_once() -> None:
    """At 50,000 of both kinds that would take gigabytes."""
    random = np.random.default_rng(0)
    yes, no = random.integers(0, 50, 3_000) / 50, random.integers(0, 50, 2_000) / 60
    found = Calibration(yes, no)
    assert found.told_apart == pytest.approx((yes[:, None] > no).mean() + (yes[:, None] == no).mean() / 2)
    tracemalloc.start()
    assert 0 < Calibration(np.tile(yes, 10), np.tile(no, 10)).told_apart < 1
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


def test_of_one_kind_nothing_can_be_said() -> None:
    assert Calibration.of(results([0.5], [])) is None
    assert Calibration.of(results([], [0.5])) is None
