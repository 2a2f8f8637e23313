"""Trains a cross-encoder for a collection, on what the collection finds for questions whose answers are known."""

from __future__ import annotations

import math
import time
from statistics import median

from parkway.core.errors import ConfigurationError
from parkway.engine import builtin
from parkway.engine.cross_encoder import CrossReader, Pairing, untrained
from parkway.engine.directory import ModelDirectory
from parkway.launch.ranker_training import Lesson, Looked, Trained, Trial
from parkway.launch.rankers import keep_cross_encoder
from parkway.retrieval.evaluation import Question, Results
from parkway.retrieval.ranking.candidate import Ranked
from parkway.retrieval.ranking.config import RankingConfig
from parkway.retrieval.ranking.cross_ranking import CrossRanking
from parkway.retrieval.ranking.train import grade_of
from parkway.train.cross_encoder import CrossTraining, Example, Report, train

WEIGHT = 1.0
"""Of a cross-encoder's score beside the rank."""

_RIGHT = 3
"""Passages that answer a question, the best first, of which one is drawn."""


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
    train(model, Pairing(start), examples, training, report)
    reader = CrossReader(start, model)
    try:
        trial = cross_encoder_trial(lesson, reader, WEIGHT, config)
    finally:
        reader.close()
    about = about | trial.about
    return Trained(trial, lambda place: keep_cross_encoder(place, model, start, WEIGHT, about))


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

        return lesson.measured(order)

    whole = f"trained, {config.depth} read ({1000 * usual_s:.0f} ms)"
    results = {"as it is": lesson.as_it_is(), whole: measured(config.depth)}
    if in_time < config.depth:
        after = f"trained, {in_time} read within {config.budget_ms:g} ms"
        results[after] = measured(in_time)
    else:
        after = whole
    return Trial(results, "as it is", after)


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
