"""Fusion, the ranker, duplicates, diversity, and training."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parkway.core.errors import ConfigurationError
from parkway.core.knowledge import Hit, Scores
from parkway.retrieval.evaluation import Question
from parkway.retrieval.ranking.candidate import Ranked
from parkway.retrieval.ranking.cross_ranking import CrossRanking
from parkway.retrieval.ranking.diversity import diverse
from parkway.retrieval.ranking.duplicates import without_duplicates
from parkway.retrieval.ranking.features import NAMES, Wording, features
from parkway.retrieval.ranking.fusion import fuse, standard
from parkway.retrieval.ranking.ranker import Ranker, Weights
from parkway.retrieval.ranking.reading import Reading
from parkway.retrieval.ranking.train import train, weighed
from tests.retrieval.index.corpus import passage, vectors

PLAIN = Weights(weights={"keyword": 1.0, "meaning": 1.0}, confidence={"cosine": 2.0, "bias": -1.0})


def ranked(number: int, text: str = "", **more: object) -> Ranked:
    values = {"keyword": 0.0, "meaning": 0.0, "by_keyword": False, "by_meaning": False, "vector": vectors(40)[number]}
    return Ranked(passage=passage(number, text=text), **{**values, **more})  # pyright: ignore[reportArgumentType]


def numbers_of(found: list[Ranked]) -> list[int]:
    return [int(one.passage.document_id[1:]) * 10 + one.passage.ordinal for one in found]


def test_ranks_of_both_lists_are_added() -> None:
    both = ranked(1, keyword=1.0, meaning=0.5, by_keyword=True, by_meaning=True)
    words = ranked(2, keyword=9.0, meaning=0.9, by_keyword=True)
    meaning = ranked(3, meaning=0.8, by_meaning=True)
    order = numbers_of(fuse([words, meaning, both]))
    assert order[0] == 1
    assert order == numbers_of(fuse([meaning, both, words]))  # equals always in the same order
    assert both.fused == pytest.approx(1 / 62 + 1 / 62)
    assert words.fused == pytest.approx(1 / 61)
    assert meaning.fused == pytest.approx(1 / 61)


def test_scores_that_are_all_the_same_say_nothing() -> None:
    assert standard(np.array([3.0, 3.0])).tolist() == [0, 0]
    assert standard(np.array([])).tolist() == []
    assert standard(np.array([1.0, 3.0])).tolist() == [-1, 1]


def test_wording_is_compared_as_the_index_does() -> None:
    texts = ["Mutations of the BRCA1 gene raise the risk.", "A gene of mutation, and 学习计算机 life", "nothing"]
    wording = Wording("mutated BRCA1 genes", Reading("english"))
    coverage, near = zip(*(wording.shared(ranked(at, text)) for at, text in enumerate(texts)), strict=True)
    assert coverage[0] == 1.0
    assert 0 < coverage[1] < 1
    assert coverage[2] == 0
    assert near[0] == 1.0
    assert near[2] == 0
    assert Wording("计算机", Reading("english")).shared(ranked(1, texts[1]))[0] > 0


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=300), st.lists(st.text(min_size=1, max_size=300), min_size=1, max_size=5))
def test_any_text_has_features(query: str, texts: list[str]) -> None:
    found = [ranked(at, text, keyword=float(at)) for at, text in enumerate(texts)]
    assert np.isfinite(features(vectors(1)[0], found)).all()
    signs = Ranker(PLAIN, "english").signs(query, found)
    assert all(0 <= signs[name] <= 1 for name in ("coverage", "near", "agreement"))


def test_a_document_that_fits_as_a_whole_lifts_its_passages() -> None:
    query, other = np.eye(16, dtype=np.float32)[:2]
    found = [ranked(0, vector=query), ranked(1, vector=query), ranked(10, vector=query), ranked(11, vector=other)]
    column = features(query, found)[:, NAMES.index("document")]
    assert column[0] == column[1] > column[2] == column[3]
    assert Ranker(PLAIN, "english").order(query, [], explain=True) == []


def test_an_explanation_adds_up_to_the_rank() -> None:
    found = [ranked(0, "a gene", keyword=3.0, meaning=0.2), ranked(1, "a gnu", keyword=1.0, meaning=0.8)]
    weights = Weights(weights={"keyword": 2.0, "meaning": 1.0}, confidence={})
    order = Ranker(weights, "english").order(vectors(1)[0], found, explain=True)
    assert numbers_of(order) == [0, 1]
    for one in order:
        assert one.explanation is not None
        weighed = sum(value for name, value in one.explanation.items() if name.endswith("_weighs"))
        assert weighed == pytest.approx(one.rank, abs=1e-4)
    assert Ranker(PLAIN, "english").confidence("gene", order) > 0


def test_the_ranker_that_is_shipped_says_on_what_it_was_trained() -> None:
    ranker = Ranker.load("english")
    assert "SciFact" in ranker.weights.about["trained_on"]
    assert "CC BY 4.0" in ranker.weights.about["licence"]
    assert ranker.weights.weights["keyword"] > 0
    assert ranker.weights.confidence["cosine"] > 0


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "no ranker can be read"),
        ("{}", "no ranker can be read"),
        (json.dumps({"weights": {"luck": 1}, "confidence": {}}), "`?luck`?, which this version"),
    ],
)
def test_a_file_that_is_no_ranker_is_refused(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "ranker.json"
    path.write_text(content)
    with pytest.raises(ConfigurationError, match=words):
        Ranker.load("english", path)
    with pytest.raises(ConfigurationError, match="no ranker can be read"):
        Ranker.load("english", tmp_path / "missing.json")


def test_passages_that_say_the_same_in_the_same_words_are_one() -> None:
    vector = vectors(1)[0]
    text = "The key is valid for thirty days after it was made, and can be renewed by an administrator."
    found = [
        ranked(0, text, vector=vector),
        ranked(1, text.upper(), vector=vectors(40)[3]),  # the same words
        ranked(2, f"{text} Ask him.", vector=vector),  # nearly
        ranked(3, text.replace("valid", "invalid").replace("is", "was"), vector=vectors(40)[5]),  # another meaning
        ranked(4, "The key is valid.", vector=vector),  # an excerpt
        ranked(5, f"{text} It has 30 characters.", vector=vector),  # a number more
    ]
    assert numbers_of(list(without_duplicates(found))) == [0, 3, 4, 5]
    assert list(without_duplicates([])) == []


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("store it at -5 degrees", "store it at 5 degrees"),
        ("it is written in C++", "it is written in C#"),
        ("stop if a < b", "stop if a > b"),
        ("stop if a = b", "stop if a != b"),
        ("it costs 5 €", "it costs 5 $"),
        ("version 1.5", "version 5.1"),
        ("from 10 to 20", "from 20 to 10"),
    ],
)
def test_another_number_or_sign_says_something_else(one: str, other: str) -> None:
    vector = vectors(1)[0]
    more = " and all the rest that stands here is the same in both, so that they are as near as can be"
    for text in (" ", more):
        texts = (one + text, other + text, f"{one},{text}")
        found = [ranked(number, each, vector=vector) for number, each in enumerate(texts)]
        assert numbers_of(list(without_duplicates(found))) == [0, 1]


def test_diverse_hits_say_something_new() -> None:
    one, other = np.eye(16, dtype=np.float32)[:2]
    found = [ranked(0, vector=one, fused=1.0), ranked(1, vector=one, fused=0.9), ranked(2, vector=other, fused=0.5)]
    assert numbers_of(diverse(found, 2, 0.0)) == [0, 1]
    assert numbers_of(diverse(found, 2, 0.5)) == [0, 2]
    assert numbers_of(diverse(found, 9, 0.5)) == [0, 2, 1]
    assert diverse([], 3, 1.0) == []


def test_training_learns_which_list_to_trust_and_when_to_be_sure() -> None:
    """In a collection whose words mislead."""
    random = np.random.default_rng(1)

    def look(right: int) -> list[Ranked]:
        found = [
            ranked(
                10 * at,
                f"passage {at}",
                keyword=float(random.uniform(0, 5)),
                meaning=float(0.9 if at == right else random.uniform(0.0, 0.5)),
                by_keyword=True,
                by_meaning=True,
                vector=vectors(40)[at],
            )
            for at in range(4)
        ]
        return Ranker(PLAIN, "english").order(vectors(40)[right], found, explain=True)

    looks = [(Question(str(at % 4), [f"d{at % 4}"]), look(at % 4)) for at in range(40)]
    weights = train(looks, "english")
    assert weights.weights["meaning"] > 1 > weights.weights["keyword"]
    assert weights.confidence["cosine"] > 0
    for question, found in looks:
        assert weighed(found, weights.weights)[0].passage.document_id == question.gold[0].document
    with pytest.raises(ConfigurationError, match="none of the 1 questions"):
        train([(Question("1", ["elsewhere"]), looks[0][1])], "english")


def passages_in_order(*ranks: float) -> list[Ranked]:
    return [ranked(at, f"passage {at}", rank=rank) for at, rank in enumerate(ranks)]


def test_a_cross_encoder_orders_the_first_and_leaves_the_others_where_they_are() -> None:
    asked: list[object] = []

    def scores(query: str, texts: Sequence[str], seconds: float) -> list[float]:
        asked.append((query, list(texts), seconds))
        return [0.1, 0.2, 9.0]

    found = passages_in_order(3.0, 2.9, 2.8, 1.0)
    order, whole = CrossRanking(scores, 2.0, 3).order("which?", found, 0.5, explain=True)
    assert whole
    assert asked == [("which?", ["passage 0", "passage 1", "passage 2"], 0.5)]
    assert numbers_of(order) == [2, 0, 1, 3]
    assert [one.rank for one in order] == [3.0, 2.9, 2.8, 1.0]
    assert order[0].explanation == {"cross_encoder": 9.0, "cross_encoder_weighs": pytest.approx(0.2)}
    assert order[3].explanation is None


def test_what_there_was_no_time_to_read_stays_behind_what_was_read() -> None:
    found = passages_in_order(3.0, 2.9, 2.8, 1.0)
    half, whole = CrossRanking(lambda *_: [0.0, 5.0], 4.0, 4).order("which?", found, 0.5, explain=False)
    assert (numbers_of(half), whole) == ([1, 0, 2, 3], False)
    same, whole = CrossRanking(lambda *_: [], 1.0, 4).order("which?", half, 0.5, explain=False)
    assert (numbers_of(same), whole) == ([1, 0, 2, 3], False)
    assert CrossRanking(lambda *_: [], 1.0, 4).order("which?", [], 0.5, explain=False) == ([], True)


def test_what_is_explained_of_a_hit_is_enough_to_rank_it() -> None:
    hit = Hit(
        passage_id="p", document_id="d", collection="docs", text="t", start=3, end=4, headings=["H"], title="T",
        scores=Scores(keyword=2.0, vector=0.5, fused=0.1, rank=1.5), explanation={"keyword": 1.0, "by_meaning": 1.0},
    )  # fmt: skip
    one = Ranked.of(hit)
    assert (one.passage.searched, one.keyword, one.meaning, one.score) == ("H\nt", 2.0, 0.5, 1.5)
    assert (one.by_keyword, one.by_meaning) == (False, True)
