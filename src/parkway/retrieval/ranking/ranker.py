"""The default ranker: a sum of weighted features, in a file of numbers, and how sure it is of what it found."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path

import msgspec
import numpy as np

from parkway.core.errors import ConfigurationError
from parkway.retrieval.index.index import Vectors
from parkway.retrieval.ranking.candidate import Ranked
from parkway.retrieval.ranking.features import NAMES, features
from parkway.retrieval.ranking.fusion import Numbers
from parkway.retrieval.ranking.reading import Reading

SHIPPED = "ranker.json"

SIGNS = ("cosine", "coverage", "near", "agreement")
"""What confidence is judged by, of the first hits, without measures that depend on the collection:

cosine: The highest.
coverage, near: The highest of these features.
agreement: The share of the first ten hits that both lists had.
"""

FIRST = 10


class Weights(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The numbers of a ranker, as its file has them.

    Attributes:
        weights: Of each feature; one that is missing weighs nothing.
        confidence: Of each sign, and `bias`: a logistic regression.
        unseen: Of the cosine alone and `bias`: where there was no time to look at the passages.
        about: On what it was trained, under which licences, and what was measured.
    """

    weights: dict[str, float]
    confidence: dict[str, float]
    unseen: dict[str, float]
    about: dict[str, str] = {}


class Ranker:
    """Orders what was found. Threads may use it at once."""

    def __init__(self, weights: Weights, language: str) -> None:
        """
        Args:
            language: That of the index.

        Raises:
            ConfigurationError: A weight is of a feature that there is not.
        """
        for kind, given, known in (
            ("feature", weights.weights, NAMES), ("sign", weights.confidence, (*SIGNS, "bias")),
            ("sign", weights.unseen, ("cosine", "bias")),
        ):  # fmt: skip
            if unknown := sorted(set(given) - set(known)):
                raise ConfigurationError(
                    f"the ranker has a weight for the {kind} {unknown[0]}, which this version does not know; "
                    f"it knows {', '.join(known)}. Train it anew: parkway knowledge train-ranker"
                )
        self.weights = weights
        self._vector = np.array([weights.weights.get(name, 0.0) for name in NAMES])
        self._reading = Reading(language)

    @classmethod
    def load(cls, language: str, path: Path | None = None) -> Ranker:
        """That in the file, or the one that is shipped.

        Raises:
            ConfigurationError: It cannot be read.
        """
        try:
            content = (
                path.read_bytes()
                if path
                else resources.files("parkway.retrieval.ranking").joinpath(SHIPPED).read_bytes()
            )
            return cls(msgspec.json.decode(content, type=Weights), language)
        except (OSError, msgspec.MsgspecError) as error:
            raise ConfigurationError(f"{path or SHIPPED}: no ranker can be read: {error}") from error

    def see(self, query: str, vector: Vectors, found: Sequence[Ranked], late: Callable[[], bool]) -> Seen | None:
        """Looks at what was found; None where there is nothing, or it is late before it has looked at all."""
        numbers = features(query, vector, found, self._reading, late) if found else None
        return None if numbers is None else Seen(found, numbers, self._vector, self.weights)

    def confidence_unseen(self, first: Sequence[Ranked]) -> float:
        """How sure it is that the answer is in these, by what is known of them without looking."""
        if not first:
            return 0.0
        return _probability(self.weights.unseen, {"cosine": max(one.meaning for one in first)})


class Seen:
    """Passages that a ranker has looked at."""

    def __init__(self, found: Sequence[Ranked], numbers: Numbers, vector: Numbers, weights: Weights) -> None:
        self.found = found
        self.numbers = numbers
        self._vector = vector
        self._weights = weights

    def order(self, *, explain: bool) -> list[Ranked]:
        """Gives each its rank; the best first, equals in the order in which they came.

        Args:
            explain: Whether each gets its features and, as `NAME_weighs`, what they add to its rank.
        """
        parts = self.numbers * self._vector
        for one, rank in zip(self.found, parts.sum(axis=1).tolist(), strict=True):
            one.rank = rank
        if explain:
            for one, values, added in zip(self.found, self.numbers.tolist(), parts.tolist(), strict=True):
                one.explanation = {name: round(value, 6) for name, value in zip(NAMES, values, strict=True)}
                one.explanation |= {f"{name}_weighs": round(part, 6) for name, part in zip(NAMES, added, strict=True)}
        return sorted(self.found, key=lambda one: -one.score)

    def signs(self, first: Sequence[Ranked]) -> dict[str, float]:
        """What confidence is judged by."""
        chosen = {id(one) for one in first[:FIRST]}
        rows = [at for at, one in enumerate(self.found) if id(one) in chosen]
        seen = self.numbers[rows]
        return {
            "cosine": max(self.found[at].meaning for at in rows),
            "coverage": float(seen[:, NAMES.index("coverage")].max()),
            "near": float(seen[:, NAMES.index("near")].max()),
            "agreement": sum(self.found[at].by_keyword and self.found[at].by_meaning for at in rows) / len(rows),
        }

    def confidence(self, first: Sequence[Ranked]) -> float:
        """The probability that what answers the query is in these: 0 to 1."""
        return _probability(self._weights.confidence, self.signs(first))


def _probability(weights: dict[str, float], signs: dict[str, float]) -> float:
    total = weights.get("bias", 0.0) + sum(weights.get(name, 0.0) * value for name, value in signs.items())
    return round(1 / (1 + math.exp(-min(max(total, -50.0), 50.0))), 4)
