"""Trains a cross-encoder for a collection, on what the collection finds for questions whose answers are known."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from itertools import chain
from statistics import median

import numpy as np

from parkway.core.errors import ConfigurationError
from parkway.engine import builtin
from parkway.engine.cross_encoder import CrossReader, Pairing, untrained
from parkway.engine.directory import ModelDirectory
from parkway.launch.ranker_training import Lesson, Looked, Trained, Trial
from parkway.launch.rankers import keep_cross_encoder
from parkway.retrieval.calibration import Calibration
from parkway.retrieval.evaluation import Question, Results
from parkway.retrieval.ranking.candidate import Ranked
from parkway.retrieval.ranking.config import RankingConfig
from parkway.retrieval.ranking.cross_ranking import CrossRanking, Scores
from parkway.retrieval.ranking.ranker import FIRST, Ranker
from parkway.retrieval.ranking.sureness import Seen, learned
from parkway.retrieval.ranking.train import grade_of
from parkway.train.cross_encoder import CrossTraining, Example, Report, train

WEIGHT = 1.0
"""Of a cross-encoder's score beside the rank."""

_FOLDS = 5

_RIGHT = 3
"""Passages that answer a question, the best first, of which one is drawn."""


def trained_cross_encoder(
    lesson: Lesson,
    ranker: Ranker,
    encoder: str,
    training: CrossTraining,
    config: RankingConfig,
    about: dict[str, str],
    report: Report,
) -> Trained:
    """A cross-encoder.

    Args:
        ranker: That of the collection, behind which it reads.
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
    reading = Reading(reader.scores)
    try:
        trial, depth = cross_encoder_trial(lesson, reading, WEIGHT, config)
        seen = what_was_seen(lesson, ranker, CrossRanking(reading.scores, WEIGHT, depth))
    finally:
        reader.close()
    sureness = learned(list(chain.from_iterable(seen)))
    about = about | trial.about
    return Trained(
        trial,
        lambda place: keep_cross_encoder(place, model, start, WEIGHT, sureness, about),
        told_apart(seen) if sureness.lead else "",
    )


class Reading:
    """The scores of passages, each read once."""

    def __init__(self, scores: Scores) -> None:
        self._scores = scores
        self._known: dict[tuple[str, str], float] = {}

    def scores(self, query: str, texts: Sequence[str], _: float) -> list[float]:
        """As of `CrossRanking`, with all the time that it takes."""
        missing = [text for text in dict.fromkeys(texts) if (query, text) not in self._known]
        made = self._scores(query, missing, math.inf) if missing else []
        self._known.update(zip(((query, text) for text in missing), made, strict=True))
        return [self._known[query, text] for text in texts]


def cross_encoder_trial(lesson: Lesson, reading: Reading, weight: float, config: RankingConfig) -> tuple[Trial, int]:
    """Measures it with the time that it will have, and with all the time that it needs; and how many it can read."""
    took_s: list[float] = []
    for each in lesson.held_out:
        texts = [one.passage.searched for one in each.ranked[: config.depth]]
        began = time.monotonic()
        reading.scores(each.question.query, texts, math.inf)
        took_s.append(time.monotonic() - began)
    usual_s = median(took_s)
    in_time = min(config.depth, int(config.depth * config.budget_ms / 1000 / max(usual_s, 1e-6)))

    def measured(depth: int) -> Results:
        cross = CrossRanking(reading.scores, weight, depth)

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
    return Trial(results, "as it is", after), in_time


def what_was_seen(lesson: Lesson, ranker: Ranker, cross: CrossRanking) -> list[list[Seen]]:
    """Of each question that was held out what was found, and the same without what answers it."""
    seen: list[list[Seen]] = []
    for each in lesson.held_out:
        question, found = each.question, each.ranked
        without = [one for one in found if not grade_of(question, one)]
        seen.append([])
        for some in (found, without) if len(without) < len(found) else (found,):
            ordered, _ = cross.order(question.query, some, math.inf, explain=False)
            first = ordered[:FIRST]
            scores = [one.read for one in ordered if one.read is not None]
            right = any(grade_of(question, one) for one in first)
            seen[-1].append(Seen(ranker.confidence(question.query, first), scores, right))
    return seen


def told_apart(seen: Sequence[Sequence[Seen]]) -> str:
    """How well confidence tells found answers from near misses, as it is and learned of other questions."""
    before: dict[bool, list[float]] = {True: [], False: []}
    after: dict[bool, list[float]] = {True: [], False: []}
    for fold in range(_FOLDS):
        sureness = learned([each for at, some in enumerate(seen) if at % _FOLDS != fold for each in some])
        for each in chain.from_iterable(seen[fold::_FOLDS]):
            before[each.right].append(each.confidence)
            after[each.right].append(sureness.of(each.confidence, each.scores))
    apart = [Calibration(np.array(some[True]), np.array(some[False])).told_apart for some in (before, after)]
    return (
        f"confidence tells {len(before[True])} found answers from {len(before[False])} near misses (AUC): "
        f"{apart[0]:.3f} as it is, {apart[1]:.3f} with what was read"
    )


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
