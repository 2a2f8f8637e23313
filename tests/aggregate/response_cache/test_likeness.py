"""Questions that only mean the same: precision before all, on the real embedding model."""

from __future__ import annotations

import random

import pytest

from parkway.aggregate.response_cache.config import ResponseCacheConfig
from parkway.aggregate.response_cache.likeness import Likeness, Wording
from parkway.engine import builtin
from parkway.engine.config import EngineConfig
from parkway.engine.directory import ModelDirectory
from parkway.engine.embedder import Embedder
from tests.aggregate.response_cache.questions import DIFFERENT, SAME

CONFIG = ResponseCacheConfig()


def likeness(most: int = 1000, ttl_s: float = 60.0, clock: list[float] | None = None) -> Likeness:
    now = clock if clock is not None else [0.0]
    return Likeness(CONFIG.semantic_threshold, most, ttl_s, clock=lambda: now[0])


async def test_no_near_miss_is_taken_for_the_same_and_most_of_the_same_are_found() -> None:
    embedder = Embedder(ModelDirectory(builtin.resolve("park-embed")), EngineConfig(model="park-embed"))
    texts = [text for pair in (*SAME, *DIFFERENT) for text in pair]
    vectors = dict(zip(texts, (await embedder.embed(embedder.tokenise(texts))), strict=True))
    await embedder.close()

    def found(asked: str, then: str) -> bool:
        questions = likeness()
        questions.learn(b"rest", b"key", asked, vectors[asked].tolist())
        return questions.find(b"rest", then, vectors[then].tolist()) == [b"key"]

    wrong = [pair for pair in DIFFERENT if found(*pair) or found(*reversed(pair))]
    assert wrong == []
    right = [pair for pair in SAME if found(*pair)]
    assert len(right) >= 0.6 * len(SAME), right


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_words_are_compared_in_both_directions(one: str, other: str) -> None:
    assert Wording(one).may_mean(Wording(other)) == Wording(other).may_mean(Wording(one))
    assert Wording(one).may_mean(Wording(one))


def test_the_nearest_are_found_among_many_and_only_within_their_group() -> None:
    rng = random.Random(5)
    questions = likeness(most=600)
    vectors = [[rng.gauss(0, 1) for _ in range(384)] for _ in range(500)]
    for number, vector in enumerate(vectors):
        questions.learn(b"a", b"%d" % number, "words", vector)
    for number in range(0, 500, 50):
        near = [value + rng.gauss(0, 0.05) for value in vectors[number]]
        assert questions.find(b"a", "words", near) == [b"%d" % number]
        assert questions.find(b"b", "words", near) == []
        assert questions.find(b"a", "words 7", near) == []
    assert questions.find(b"a", "words", [0.0] * 384) == []
    assert questions.find(b"a", "words", [1.0]) == []


def test_what_is_kept_is_bounded_and_grows_old() -> None:
    clock = [0.0]
    questions = likeness(most=10, ttl_s=5, clock=clock)
    for number in range(100):
        questions.learn(b"%d" % (number % 7), b"%d" % number, "words", [1.0, number])
        assert len(questions) <= 10
    assert questions.find(b"1", "words", [1.0, 99.0])[0] == b"99"
    clock[0] = 6.0
    assert questions.find(b"1", "words", [1.0, 99.0]) == []
