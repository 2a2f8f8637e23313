"""Training the default ranker on judged questions.

Ranking: a softmax over the documents that were found, each with the score of its best passage, against those that are
right (ListNet; Cao et al., "Learning to rank: from pairwise approach to listwise approach", 2007). Few weights, held
near those of the plain sum of standardised scores: what is learned has to hold for collections that were never seen.

Confidence: a logistic regression that tells searches which have found an answer from the same searches after the
answers were taken out. So it says how likely an answer is where half of the questions have none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from parkway.core.errors import ConfigurationError
from parkway.retrieval.evaluation import Question
from parkway.retrieval.ranking.candidate import Ranked
from parkway.retrieval.ranking.features import NAMES
from parkway.retrieval.ranking.fusion import Numbers
from parkway.retrieval.ranking.ranker import FIRST, SIGNS, Ranker, Weights

PRIOR = {"keyword": 1.0, "meaning": 1.0}

Looked = tuple[Question, Sequence[Ranked]]
"""A question, and what was found for it, each with its features as explanation."""


@dataclass(frozen=True, slots=True)
class Training:
    """How it is trained.

    Attributes:
        pull: How strongly weights are held at those of the plain sum.
        steps: Of Adam.
        confidence_pull: How strongly the weights of signs are held at 0.
    """

    pull: float = 0.03
    steps: int = 120
    rate: float = 0.05
    confidence_pull: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class _Example:
    """What was found for a question, ordered by document.

    Attributes:
        numbers: float64 [passages, features].
        starts: Where each document's passages begin.
        owners: Of each passage the number of its document.
        right: Of each document its share of what is right; sums to 1.
    """

    numbers: Numbers
    starts: Numbers
    owners: Numbers
    right: Numbers


def train(looks: Sequence[Looked], language: str, training: Training | None = None) -> Weights:
    """The weights that fit the questions.

    Args:
        looks: As searches with `explain` have found them.

    Raises:
        ConfigurationError: For none of the questions anything right is found.
    """
    chosen = training or Training()
    examples = [each for question, found in looks if (each := _example(question, found)) is not None]
    if not examples:
        raise ConfigurationError(
            f"none of the {len(looks)} questions has anything right among what is found for it: are the documents "
            "that `relevant` names in the collection, under these names?"
        )
    weights = fit(examples, chosen)
    signs, labels = _signs(looks, Ranker(Weights(weights=weights, confidence={}), language))
    return Weights(weights=weights, confidence=_confidence(signs, labels, chosen.confidence_pull))


def weighed(found: Sequence[Ranked], weights: dict[str, float]) -> list[Ranked]:
    """In the order of other weights, the best first; each has its rank by them."""
    vector = np.array([weights.get(name, 0.0) for name in NAMES])
    for one, rank in zip(found, (_numbers(found) @ vector).tolist(), strict=True):
        one.rank = rank
    return sorted(found, key=lambda one: -one.score)


def fit(examples: Sequence[_Example], training: Training) -> dict[str, float]:
    """The weights that make what is right likely."""
    prior = np.array([PRIOR.get(name, 0.0) for name in NAMES])
    weights, first, second = prior.copy(), np.zeros(len(prior)), np.zeros(len(prior))
    for step in range(1, training.steps + 1):
        gradient = training.pull * (weights - prior)
        for each in examples:
            numbers = each.numbers
            scores = numbers @ weights
            best = np.maximum.reduceat(scores, each.starts)
            at = np.flatnonzero(scores == best[each.owners])
            _, unique = np.unique(each.owners[at], return_index=True)
            likely = np.exp(best - best.max())
            gradient += numbers[at[unique]].T @ (likely / likely.sum() - each.right) / len(examples)
        first = 0.9 * first + 0.1 * gradient
        second = 0.99 * second + 0.01 * gradient**2
        step_size = (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.99**step)) + 1e-8)
        weights = weights - training.rate * step_size
    return {name: round(float(weight), 3) for name, weight in zip(NAMES, weights, strict=True)}


def _numbers(found: Sequence[Ranked]) -> Numbers:
    explained = [one.explanation or {} for one in found]
    return np.array([[each.get(name, 0.0) for name in NAMES] for each in explained]).reshape(len(found), len(NAMES))


def _example(question: Question, found: Sequence[Ranked]) -> _Example | None:
    documents, owners = np.unique([one.passage.document_id for one in found], return_inverse=True)
    order = np.argsort(owners, kind="stable")
    owners = owners[order]
    right = np.zeros(len(documents))
    for at, one in zip(owners, (found[each] for each in order), strict=True):
        right[at] = max(right[at], grade_of(question, one))
    if not right.any():
        return None
    starts = np.searchsorted(owners, np.arange(len(documents)))
    return _Example(_numbers(found)[order], starts, owners, right / right.sum())


def grade_of(question: Question, one: Ranked) -> float:
    """How well a passage answers the question; 0: not at all."""
    return max((each.grade for each in question.gold if each.is_in(one.passage)), default=0.0)


def _signs(looks: Sequence[Looked], ranker: Ranker) -> tuple[Numbers, Numbers]:
    rows: list[list[float]] = []
    labels: list[bool] = []
    for question, found in looks:
        without = [one for one in found if not grade_of(question, one)]
        for some in (found, without) if len(without) < len(found) else (found,):
            if hits := weighed(some, ranker.weights.weights)[:FIRST]:
                signs = ranker.signs(question.query, hits)
                rows.append([signs[name] for name in SIGNS])
                labels.append(any(grade_of(question, one) for one in hits))
    return np.array(rows), np.array(labels, float)


def _confidence(signs: Numbers, labels: Numbers, pull: float) -> dict[str, float]:
    """The weight of each sign; the bias is not held."""
    numbers = np.column_stack([signs, np.ones(len(signs))])
    weights = logistic(numbers, labels, np.zeros(len(SIGNS) + 1), np.array([pull] * len(SIGNS) + [1e-6]))
    return {name: round(float(weight), 4) for name, weight in zip((*SIGNS, "bias"), weights, strict=True)}


def logistic(numbers: Numbers, labels: Numbers, prior: Numbers, pull: Numbers) -> Numbers:
    """A logistic regression by Newton's method, its weights held near others.

    Args:
        numbers: float64 [examples, weights].
        labels: float64 [examples], 0 or 1.
        prior: float64 [weights]: where they are held, each with its `pull`, float64 [weights], above 0.
    """
    weights = prior.copy()
    for _ in range(25):
        likely = 1 / (1 + np.exp(-np.clip(numbers @ weights, -30, 30)))
        gradient = numbers.T @ (likely - labels) + pull * (weights - prior)
        curvature = (numbers * (likely * (1 - likely))[:, None]).T @ numbers + np.diag(pull)
        weights = weights - np.linalg.solve(curvature, gradient)
    return weights
