"""Trains rankers of one's own: on questions whose answers are known, and on what a collection finds for them.

A fifth of the questions is held out. On it the search as it is and the search with what was trained are compared.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from parkway.core.errors import ConfigurationError
from parkway.core.knowledge import Found, Hit
from parkway.launch.ranker_files import keep_ranker
from parkway.retrieval.evaluation import Interval, Question, Results, difference, evaluate, told
from parkway.retrieval.ranking.candidate import Ranked
from parkway.retrieval.ranking.features import NAMES
from parkway.retrieval.ranking.train import train, weighed

HELD_OUT = 0.2
LEAST_QUESTIONS, MOST_QUESTIONS = 20, 2000
MEASURE = "nDCG@10"

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

    def as_it_is(self) -> Results:
        """What was found for the questions that were held out."""
        found = {each.question.query: each.found for each in self.held_out}
        return evaluate([each.question for each in self.held_out], found.__getitem__)

    def measured(self, order: Callable[[Looked], Sequence[Ranked]]) -> Results:
        """The same in another order."""
        found = {each.question.query: Found(hits=_hits(each, order(each))) for each in self.held_out}
        return evaluate([each.question for each in self.held_out], found.__getitem__)


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

    @property
    def about(self) -> dict[str, str]:
        """What the file of what was trained says of it."""
        return {"measured": f"{MEASURE} {told(self.change)} on what was held out"}


@dataclass(frozen=True, slots=True)
class Trained:
    """What came of it.

    Attributes:
        keep: Makes it that of the collection in a directory.
        remark: What else was measured.
    """

    trial: Trial
    keep: Callable[[Path], None]
    remark: str = ""


def trained_ranker(lesson: Lesson, language: str, about: dict[str, str]) -> Trained:
    """The weights of the ranker.

    Args:
        about: What its file says of it.

    Raises:
        ConfigurationError: For none of the questions anything right is found.
    """
    weights = train([(each.question, each.ranked) for each in lesson.training], language)
    after = lesson.measured(lambda each: weighed(each.ranked, weights.weights))
    trial = Trial({"as it is": lesson.as_it_is(), "trained": after}, "as it is", "trained")
    weights = msgspec.structs.replace(weights, about=about | trial.about)
    return Trained(trial, lambda place: keep_ranker(place, weights))


def _hits(looked: Looked, ordered: Sequence[Ranked]) -> list[Hit]:
    by_id = {hit.passage_id: hit for hit in looked.found.hits}
    return [by_id[one.passage.passage_id] for one in ordered]
