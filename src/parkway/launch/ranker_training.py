"""Trains rankers of one's own: on questions whose answers are known, and on what a collection finds for them.

A fifth of the questions is held out. On it the search as it is and the search with what was trained are compared.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import msgspec

from parkway.core.errors import ConfigurationError
from parkway.core.knowledge import Found, Hit
from parkway.engine import builtin
from parkway.engine.cross_encoder import CrossReader, Pairing, untrained
from parkway.engine.directory import ModelDirectory
from parkway.launch.rankers import keep_cross_encoder, keep_ranker
from parkway.retrieval.evaluation import Interval, Question, Results, difference, evaluate, told
from parkway.retrieval.ranking.candidate import Ranked
from parkway.retrieval.ranking.config import RankingConfig
from parkway.retrieval.ranking.cross_ranking import CrossRanking
from parkway.retrieval.ranking.features import NAMES
from parkway.retrieval.ranking.train import grade_of, train, weighed
from parkway.train.cross_encoder import CrossTraining, Example, Report
from parkway.train.cross_encoder import train as train_cross_encoder

HELD_OUT = 0.2
LEAST_QUESTIONS, MOST_QUESTIONS = 20, 2000
MEASURE = "nDCG@10"

WEIGHT = 1.0
"""Of a cross-encoder's score beside the rank."""

_RIGHT = 3
"""Passages that answer a question, the best first, of which one is drawn."""

Look = Callable[[str], Found]
"""Searches, with `explain`, for as many hits as `DEPTH` documents need."""


@dataclass(frozen=True, slots=True)
class Looked:
    """A question and what was found for it."""

    question: Question
    found: Found

    @property
    def ranked(self) -> list[Ranked]:
        """In the order of the ranker alone, whatever was made of it behind it."""
        return sorted(map(Ranked.of, self.found.hits), key=lambda one: -_rank(one))


def _rank(one: Ranked) -> float:
    told = one.explanation or {}
    return sum(told.get(f"{name}_weighs", 0.0) for name in NAMES)


@dataclass(frozen=True, slots=True)
class Lesson:
    """What is trained with, and what was held out for measuring."""

    training: list[Looked]
    held_out: list[Looked]

    @classmethod
    def of(cls, questions: Sequence[Question], look: Look, advance: Callable[[int], object]) -> Lesson:
        """Searches for each question.

        Raises:
            ConfigurationError: There are too few questions that have an answer.
        """
        known = [question for question in questions if question.gold]
        if len(known) < LEAST_QUESTIONS:
            raise ConfigurationError(
                f"there are {len(known)} questions with something relevant; it takes {LEAST_QUESTIONS} to train "
                "a ranker and to measure it"
            )
        # By their hashes: what was held out once is held out in the next training, too, if questions are added.
        drawn = sorted(known, key=lambda question: hashlib.sha256(question.query.encode("utf-8", "replace")).digest())
        drawn = drawn[:MOST_QUESTIONS]  # what is found for all of them is held in memory
        looked: list[Looked] = []
        for done, question in enumerate(drawn, 1):
            looked.append(Looked(question, look(question.query)))
            advance(done)
        held = round(HELD_OUT * len(looked))
        return cls(looked[held:], looked[:held])


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """What was measured on the questions that were held out.

    Attributes:
        results: Of the search as it is, and as it would be; by what they are called.
        before, after: Which of them are compared.
    """

    results: dict[str, Results]
    before: str
    after: str

    @property
    def change(self) -> Interval:
        """Of nDCG@10, question by question."""
        return difference(self.results[self.before], self.results[self.after], MEASURE)

    @property
    def better(self) -> bool:
        return self.change.mean > 0


@dataclass(frozen=True, slots=True)
class Trained:
    """What came of it.

    Attributes:
        keep: Makes it that of the collection in a directory.
    """

    trial: Trial
    keep: Callable[[Path], None]


def trained_ranker(lesson: Lesson, language: str, about: dict[str, str]) -> Trained:
    """The weights of the ranker.

    Args:
        about: What its file says of it.

    Raises:
        ConfigurationError: For none of the questions anything right is found.
    """
    weights = train([(each.question, each.ranked) for each in lesson.training], language)
    after = _measured(lesson.held_out, lambda each: weighed(each.ranked, weights.weights))
    trial = Trial({"as it is": _as_it_is(lesson), "trained": after}, "as it is", "trained")
    weights = msgspec.structs.replace(weights, about=about | _measure_of(trial))
    return Trained(trial, lambda place: keep_ranker(place, weights))


def trained_cross_encoder(
    lesson: Lesson,
    encoder: str,
    training: CrossTraining,
    config: RankingConfig,
    about: dict[str, str],
    report: Report,
) -> Trained:
    """A cross-encoder.

    Args:
        encoder: The model that it begins with, or its directory.
        config: What it will have to keep to.
        about: What its file says of it.

    Raises:
        ConfigurationError: For none of the questions anything right is found; or there is nothing wrong to tell apart.
    """
    examples = [each for looked in lesson.training if (each := _example(looked)) is not None]
    if not examples:
        raise ConfigurationError(
            f"for none of the {len(lesson.training)} questions something right and something wrong is found: are the "
            "documents that `relevant` names in the collection, under these names?"
        )
    start = ModelDirectory(builtin.resolve(encoder))
    model = untrained(start)
    train_cross_encoder(model, Pairing(start), examples, training, report)
    reader = CrossReader(start, model)
    try:
        trial = cross_encoder_trial(lesson, reader, WEIGHT, config)
    finally:
        reader.close()
    about = about | _measure_of(trial)
    return Trained(trial, lambda place: keep_cross_encoder(place, model, start, WEIGHT, about))


def _measure_of(trial: Trial) -> dict[str, str]:
    return {"measured": f"{MEASURE} {told(trial.change)} on what was held out"}


def cross_encoder_trial(lesson: Lesson, reader: CrossReader, weight: float, config: RankingConfig) -> Trial:
    """Measures it with the time that it will have, and with all the time that it needs."""
    scores: dict[str, list[float]] = {}
    took_s: list[float] = []
    for each in lesson.held_out:
        texts = [one.passage.searched for one in each.ranked[: config.depth]]
        began = time.monotonic()
        scores[each.question.query] = reader.scores(each.question.query, texts, math.inf)
        took_s.append(time.monotonic() - began)
    usual_s = median(took_s)
    in_time = min(config.depth, int(config.depth * config.budget_ms / 1000 / max(usual_s, 1e-6)))

    def measured(depth: int) -> Results:
        cross = CrossRanking(lambda query, texts, _: scores[query][: len(texts)], weight, depth)

        def order(each: Looked) -> list[Ranked]:
            return cross.order(each.question.query, each.ranked, math.inf, explain=False)[0]

        return _measured(lesson.held_out, order)

    whole = f"trained, {config.depth} read ({1000 * usual_s:.0f} ms)"
    results = {"as it is": _as_it_is(lesson), whole: measured(config.depth)}
    if in_time < config.depth:
        after = f"trained, {in_time} read within {config.budget_ms:g} ms"
        results[after] = measured(in_time)
    else:
        after = whole
    return Trial(results, "as it is", after)


def _as_it_is(lesson: Lesson) -> Results:
    found = {each.question.query: each.found for each in lesson.held_out}
    return evaluate([each.question for each in lesson.held_out], found.__getitem__)


def _measured(held_out: Sequence[Looked], order: Callable[[Looked], Sequence[Ranked]]) -> Results:
    found = {each.question.query: Found(hits=_hits(each, order(each))) for each in held_out}
    return evaluate([each.question for each in held_out], found.__getitem__)


def _hits(looked: Looked, ordered: Sequence[Ranked]) -> list[Hit]:
    by_id = {hit.passage_id: hit for hit in looked.found.hits}
    return [by_id[one.passage.passage_id] for one in ordered]


def _example(looked: Looked) -> Example | None:
    """Of a document that is right as a whole the passage that was found first is right, and none of it is wrong."""
    question, ranked = looked.question, looked.ranked
    right: list[Ranked] = []
    wrong: list[Ranked] = []
    whole: set[str] = set()
    for one in ranked:
        document = one.passage.document_id
        if not grade_of(question, one):
            wrong.append(one)
        elif document not in whole:
            right.append(one)
            if _is_whole(question, one):
                whole.add(document)
    if not right or not wrong:
        return None
    texts = ([one.passage.searched for one in some] for some in (right[:_RIGHT], wrong))
    return Example(question.query, *texts)


def _is_whole(question: Question, one: Ranked) -> bool:
    return any(each.start is None and each.names(one.passage.document_id, one.passage.uri) for each in question.gold)
