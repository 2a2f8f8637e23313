"""Questions by rule."""

import random
import re

import pytest

from parkway.train.phrasing import FRAMES, HELD_OUT_FRAMES, gerund, question


def asked(seed: int, name: str | None = None, frames: tuple[str, ...] = FRAMES) -> list[str]:
    rng = random.Random(seed)
    return [question("Extract an archive into a specific directory", name, rng, frames=frames) for _ in range(300)]


def test_the_same_seed_asks_the_same() -> None:
    assert asked(1) == asked(1)
    assert asked(1) != asked(2)


def test_one_task_is_asked_in_many_ways() -> None:
    assert len(set(asked(1))) > 200


def test_a_named_command_is_in_every_question() -> None:
    assert all("tar" in each.lower() for each in asked(3, name="tar"))


def test_a_command_that_is_not_named_is_in_none() -> None:
    assert not [each for each in asked(3) if re.search(r"\btar\b", each.lower())]


def test_no_frame_of_the_examination_is_trained() -> None:
    assert not set(FRAMES) & set(HELD_OUT_FRAMES)
    openings = tuple(frame.split("{")[0] for frame in HELD_OUT_FRAMES)
    assert not [each for each in asked(4) if each.startswith(openings)]


@pytest.mark.parametrize(
    ("wish", "expected"),
    [
        ("extract an archive", "extracting an archive"),
        ("create a file", "creating a file"),
        ("run it", "running it"),
        ("commit changes", "committing changes"),
        ("see all", "seeing all"),
        ("print text", "printing text"),
        ("untie a knot", "untying a knot"),
        ("show", "showing"),
        ("recursively list files", "recursively list files"),
    ],
)
def test_gerund(wish: str, expected: str) -> None:
    assert gerund(wish) == expected
