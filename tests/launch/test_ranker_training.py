"""Training rankers, from judged questions to what a collection is searched by."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from parkway.core.errors import ConfigurationError
from parkway.core.knowledge import Found, Hit, Scores, Search
from parkway.engine.cross_encoder import CrossReader, untrained
from parkway.engine.directory import ModelDirectory
from parkway.launch.cross_encoder_training import (
    Reading,
    cross_encoder_trial,
    told_apart,
    trained_cross_encoder,
    what_was_seen,
)
from parkway.launch.encoding import Encoding
from parkway.launch.ranker_files import cross_encoder_of, forget, stamp_of
from parkway.launch.ranker_training import Lesson, trained_ranker
from parkway.launch.rankers import Rankers
from parkway.retrieval import judged
from parkway.retrieval.evaluation import Question, Relevant
from parkway.retrieval.judged import Judged
from parkway.retrieval.query_vectors import QueryVectors
from parkway.retrieval.ranking.config import RankingConfig
from parkway.retrieval.ranking.cross_ranking import CrossRanking
from parkway.retrieval.ranking.ranker import Ranker
from parkway.retrieval.ranking.sureness import Sureness, learned
from parkway.retrieval.search import Searcher
from parkway.train.cross_encoder import CrossTraining, Progress
from tests.engine.small_encoder import small_encoder

ANYBODY = frozenset({"user:judge"})
THINGS = ["lanterns", "violins", "glaciers", "beehives", "harbours", "meteors", "orchards", "compasses"]
COLOURS = ["red", "blue", "green"]


@pytest.fixture
def start(tmp_path: Path) -> ModelDirectory:
    (tmp_path / "start").mkdir()
    return small_encoder(tmp_path / "start")


def passage(thing: str, colour: str, rank: float) -> Hit:
    explanation = {"keyword": rank, "keyword_weighs": rank, "by_keyword": 1.0}
    return Hit(
        passage_id=f"{thing} {colour}", document_id=f"{thing} {colour}", collection="docs", start=0, end=9,
        text=f"the {thing} is {colour}", scores=Scores(keyword=rank, rank=rank), explanation=explanation,
    )  # fmt: skip


def look(query: str) -> Found:
    """Puts what is red last."""
    thing = query.split()[-1]
    hits = [passage(thing, colour, -float(at)) for at, colour in enumerate(reversed(COLOURS))]
    return Found(hits=hits, confidence=0.5, took_ms={"total": 1.0})


def lesson() -> Lesson:
    """What is red is right."""
    things = [f"{colour}{thing}" for thing in THINGS for colour in ("old", "new", "tall")]
    questions = [Question(f"which {thing}", [f"{thing} red"]) for thing in things]
    return Lesson.of([*questions, Question("which moon")], look, lambda _: None)


def test_a_ranker_is_trained_by_what_park_embed_and_the_index_find(tmp_path: Path) -> None:
    collection = Judged(
        {
            thing: judged.document(f"About {thing}", f"Here stands what people have written of {thing}.")
            for thing in THINGS
        },
        [Question(f"who wrote {what} {thing}", [thing]) for thing in THINGS for what in ("of", "about", "on")],
    )
    encoding = Encoding("park-embed")
    index = judged.indexed(collection, tmp_path / "index", encoding.encoder, encoding.embed)
    searcher = Searcher("docs", [index], QueryVectors(encoding.embed, 99), Ranker.load("english"))
    try:
        learned = Lesson.of(
            collection.questions,
            lambda query: searcher.search(Search(query=query, limit=100, explain=True), ANYBODY),
            lambda _: None,
        )
        trained = trained_ranker(learned, "english", {"trained_on": "things"})
    finally:
        index.close()
        encoding.close()
    assert (len(learned.training), len(learned.held_out)) == (19, 5)
    assert trained.trial.results["as it is"].measures["nDCG@10"].mean() == 1.0
    assert not trained.trial.better, "nothing is better than all"
    trained.keep(tmp_path)
    weights = Rankers.of(tmp_path, "english", RankingConfig()).ranker.weights
    assert weights.about["trained_on"] == "things"
    assert "+0.000" in weights.about["measured"]
    assert weights.weights["keyword"] > 0
    assert set(weights.confidence) == {*Ranker.load("english").weights.confidence}


def test_a_cross_encoder_learns_what_the_ranker_cannot_see(tmp_path: Path, start: ModelDirectory) -> None:
    told = list[Progress]()
    training = CrossTraining(rounds=12, rate=2e-3, threads=1)
    trained = trained_cross_encoder(
        lesson(),
        Ranker.load("english"),
        str(start.path),
        training,
        RankingConfig(depth=3, budget_ms=9999),
        {},
        told.append,
    )
    trial = trained.trial
    assert trial.better
    assert trial.results[trial.after].measures["MRR@10"].mean() > trial.results["as it is"].measures["MRR@10"].mean()
    before = stamp_of(tmp_path)
    trained.keep(tmp_path)
    assert stamp_of(tmp_path) != before
    rankers = Rankers.of(tmp_path, "english", RankingConfig(depth=3))
    assert rankers.cross is not None
    assert rankers.stamp == stamp_of(tmp_path)
    trained.keep(tmp_path)
    assert len(list((tmp_path / "ranker").glob("cross-encoder_*"))) == 1, "the one before is gone"
    assert Rankers.of(tmp_path, "english", RankingConfig(), reads=False).cross is None
    forget(tmp_path)
    assert stamp_of(tmp_path) == before
    assert cross_encoder_of(tmp_path) is None
    rankers.close()


class Knowing:
    """A reader that knows an answer when it reads one; all else it doubts, more or less."""

    def __init__(self) -> None:
        self.read = 0

    def scores(self, query: str, texts: Sequence[str], _: float) -> list[float]:
        self.read += len(texts)
        return [4.0 if "red" in text else (len(query) * at % 7) / 7 for at, text in enumerate(texts)]


def test_what_was_read_makes_a_search_surer_or_less_sure() -> None:
    colours = ["blue", "red", "green", "white", "black", "brown", "pink"]

    def found(query: str) -> Found:
        thing = query.split()[-1]
        return Found(hits=[passage(thing, colour, -float(at)) for at, colour in enumerate(colours)])

    things = [f"{'x' * (at % 9)}thing{at}" for at in range(200)]
    judged_so = [Question(f"which {thing}", [f"{thing} red"]) for thing in things]
    lesson = Lesson.of(judged_so, found, lambda _: None)
    reader = Knowing()
    reading = Reading(reader.scores)
    cross = CrossRanking(reading.scores, 1.0, 6)
    seen = what_was_seen(lesson, Ranker.load("english"), cross)
    assert [[each.right for each in some] for some in seen] == [[True, False]] * 40
    assert {len(each.scores) for some in seen for each in some} == {6}
    assert reader.read == 40 * 7, "nothing is read twice"
    assert told_apart(seen).endswith("1.000 with what was read")
    sureness = learned([each for some in seen for each in some])
    sure, unsure = seen[0]
    assert sureness.of(0.4, sure.scores) > 0.5 > sureness.of(0.4, unsure.scores)
    assert sureness.of(0.4, sure.scores[:4]) == 0.4, "too few were read"
    assert sureness.of(0.01, sure.scores) < sureness.of(0.4, sure.scores), "what was known before counts, too"
    few = learned([each for some in seen[:10] for each in some])
    assert few == learned([some[0] for some in seen]) == Sureness(), "too few, or of one kind: nothing is learned"
    assert few.of(0.4, sure.scores) == 0.4


def test_one_that_cannot_keep_to_its_budget_is_measured_with_what_it_can_read(start: ModelDirectory) -> None:
    reader = CrossReader(start, untrained(start))
    trial, depth = cross_encoder_trial(lesson(), Reading(reader.scores), 1.0, RankingConfig(depth=3, budget_ms=1e-3))
    assert depth == 0
    reader.close()
    assert trial.after == "trained, 0 read within 0.001 ms"
    assert trial.change.mean == 0
    assert len(trial.results) == 3


def test_what_is_right_and_wrong_of_what_was_found() -> None:
    """Other passages of a document that is right as a whole are neither; those without the span are wrong."""
    from parkway.launch.cross_encoder_training import _example
    from parkway.launch.ranker_training import Looked

    hits = [
        Hit(
            passage_id=f"{document}{start}", document_id=document, collection="docs", text=f"{document} {start}",
            start=start, end=start + 10, scores=Scores(), explanation={"keyword_weighs": -float(at)},
        )
        for at, (document, start) in enumerate([("b", 0), ("a", 0), ("a", 10), ("c", 0)])
    ]  # fmt: skip
    found = Found(hits=hits)
    whole = _example(Looked(Question("q", ["a"]), found))
    span = _example(Looked(Question("q", [Relevant("a", 12, 14)]), found))
    assert whole is not None
    assert span is not None
    assert (whole.right, whole.wrong) == (["a 0"], ["b 0", "c 0"])
    assert (span.right, span.wrong) == (["a 10"], ["b 0", "a 0", "c 0"])
    assert _example(Looked(Question("q", ["z"]), found)) is None


def test_too_few_questions_train_nothing() -> None:
    questions = [Question(f"which {thing}", [thing]) for thing in THINGS]
    with pytest.raises(ConfigurationError, match="there are 8 questions with something relevant; it takes 20"):
        Lesson.of(questions, look, lambda _: None)
    elsewhere = Lesson.of([Question(f"which {at}", ["elsewhere"]) for at in range(20)], look, lambda _: None)
    with pytest.raises(ConfigurationError, match="none of the 16 questions"):
        trained_ranker(elsewhere, "english", {})


def test_what_cannot_be_read_is_told_and_left_out(
    tmp_path: Path, start: ModelDirectory, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "ranker").mkdir()
    (tmp_path / "ranker" / "cross-encoder.json").write_text('{"directory": "gone", "weight": 1.0}')
    with caplog.at_level(logging.ERROR):
        rankers = Rankers.of(tmp_path, "english", RankingConfig())
    assert rankers.cross is None
    assert rankers.ranker.weights == Ranker.load("english").weights
    assert "cannot be used" in caplog.text
    (tmp_path / "ranker" / "cross-encoder.json").write_text("{")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        cross_encoder_of(tmp_path)


def test_an_encoding_cuts_what_is_not_read_and_keeps_the_order() -> None:
    encoding = Encoding("park-embed")
    try:
        texts = ["word " * 1000, "a cat", "", "a kitten"]
        vectors = encoding.embed(texts)
        assert vectors.shape == (4, encoding.dimensions)
        assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
        assert vectors[1] @ vectors[3] > 0.5 > vectors[1] @ vectors[0]
        assert encoding.encoder.count(texts)[0] > encoding.reads > encoding.encoder.count(texts)[1]
        assert encoding.embed([]).shape == (0, encoding.dimensions)
    finally:
        encoding.close()


class Interrupted:
    """An answer that is waited for when Ctrl-C comes."""

    def __init__(self, answer: concurrent.futures.Future[Any]) -> None:
        self.cancel = answer.cancel

    def result(self, _: float) -> None:
        raise KeyboardInterrupt


def test_an_encoding_that_is_interrupted_does_not_finish_first(monkeypatch: pytest.MonkeyPatch) -> None:
    encoding = Encoding("park-embed")
    run = asyncio.run_coroutine_threadsafe
    with monkeypatch.context() as patched:
        patched.setattr(asyncio, "run_coroutine_threadsafe", lambda work, loop: Interrupted(run(work, loop)))
        with pytest.raises(KeyboardInterrupt):
            encoding.embed([f"{number} " + "word " * 200 for number in range(2000)])
    [embedder] = encoding._encoders._embedders.values()
    encoding.close()
    assert embedder._loop.texts < 2000
