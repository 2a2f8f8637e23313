"""The default ranker: a sum of weighted features, in a file of numbers, and how sure it is of what it found."""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import msgspec
import numpy as np

from parkway.core.errors import ConfigurationError
from parkway.retrieval.index.index import Vectors
from parkway.retrieval.ranking.candidate import Ranked
from parkway.retrieval.ranking.features import NAMES, Wording, features
from parkway.retrieval.ranking.reading import Reading

SHIPPED = "ranker.json"

SIGNS = ("cosine", "coverage", "near", "agreement")
"""What confidence is judged by, of the first hits, without measures that depend on the collection:

cosine: The highest.
coverage, near: The highest share of the query's terms, and of its neighbouring terms, that one of them has.
agreement: The share of them that both lists had.
"""

FIRST = 10
"""So many hits are judged."""


class Weights(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The numbers of a ranker, as its file has them.

    Attributes:
        weights: Of each feature; one that is missing weighs nothing.
        confidence: Of each sign, and `bias`: a logistic regression.
        about: On what it was trained, under which licences, and what was measured.
    """

    weights: dict[str, float]
    confidence: dict[str, float]
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

    def order(self, vector: Vectors, found: Sequence[Ranked], *, explain: bool) -> list[Ranked]:
        """Gives each its rank; the best first, equals in the order in which they came.

        Args:
            vector: Of the query.
            explain: Whether each gets its features and, as `NAME_weighs`, what they add to its rank; and which of the
                lists had it.
        """
        if not found:
            return []
        numbers = features(vector, found)
        parts = numbers * self._vector
        for one, rank in zip(found, parts.sum(axis=1).tolist(), strict=True):
            one.rank = rank
        if explain:
            for one, values, added in zip(found, numbers.tolist(), parts.tolist(), strict=True):
                one.explanation = {name: round(value, 6) for name, value in zip(NAMES, values, strict=True)}
                one.explanation |= {"by_keyword": float(one.by_keyword), "by_meaning": float(one.by_meaning)}
                one.explanation |= {f"{name}_weighs": round(part, 6) for name, part in zip(NAMES, added, strict=True)}
        return sorted(found, key=lambda one: -one.score)

    def confidence(self, query: str, hits: Sequence[Ranked]) -> float:
        """The probability that what answers the query is in the first of these: 0 to 1."""
        if not hits:
            return 0.0
        weights = self.weights.confidence
        signs = self.signs(query, hits)
        total = weights.get("bias", 0.0) + sum(weights.get(name, 0.0) * value for name, value in signs.items())
        return round(1 / (1 + math.exp(-min(max(total, -50.0), 50.0))), 4)

    def signs(self, query: str, hits: Sequence[Ranked]) -> dict[str, float]:
        """What confidence is judged by."""
        first = hits[:FIRST]
        wording = Wording(query, self._reading)
        coverage, near = zip(*(wording.shared(one) for one in first), strict=True)
        return {
            "cosine": max(one.meaning for one in first),
            "coverage": max(coverage),
            "near": max(near),
            "agreement": sum(one.by_keyword and one.by_meaning for one in first) / len(first),
        }
