"""Questions outside the field."""

import random

from parkway.train import refusals


def test_every_template_is_filled() -> None:
    rng = random.Random(0)
    for template in (*refusals.TEMPLATES, *refusals.HELD_OUT_TEMPLATES):
        assert "{" not in refusals.outside(rng, templates=(template,))


def test_no_template_of_the_examination_is_trained() -> None:
    assert not set(refusals.TEMPLATES) & set(refusals.HELD_OUT_TEMPLATES)


def test_an_invented_name_is_never_a_known_one() -> None:
    once = {refusals.invented_name(random.Random(seed), frozenset()) for seed in range(50)}
    again = {refusals.invented_name(random.Random(seed), frozenset(once)) for seed in range(50)}
    assert not once & again


def test_small_talk_has_an_answer_for_each_kind() -> None:
    rng = random.Random(1)
    answers = {refusals.small_talk(rng)[1] for _ in range(200)}
    assert answers == {refusals.GREETING, refusals.IDENTITY, refusals.THANKS, refusals.FAREWELL}
