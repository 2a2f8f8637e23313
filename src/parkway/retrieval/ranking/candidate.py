"""A passage on its way from the lists to the hits."""

from __future__ import annotations

from dataclasses import dataclass

from parkway.core.knowledge import Hit
from parkway.retrieval.document import Passage
from parkway.retrieval.index.index import Vectors


@dataclass(slots=True, eq=False)
class Ranked:
    """A passage that a search has found, with all that is known of it by now.

    Attributes:
        keyword: BM25; 0 where it has none of the query's words.
        meaning: Cosine; 0 where the query was not embedded.
        by_keyword, by_meaning: Whether the list by words, or by meaning, had it.
        fused: Reciprocal rank fusion of both lists.
        rank: Of the ranker; None where it was not asked, or had no time.
        read: The score of a cross-encoder; None where it did not read it.
        explanation: What the ranker saw, and how much each part weighed.
    """

    passage: Passage
    vector: Vectors
    keyword: float
    meaning: float
    by_keyword: bool
    by_meaning: bool
    fused: float = 0.0
    rank: float | None = None
    read: float | None = None
    explanation: dict[str, float] | None = None

    @classmethod
    def of(cls, hit: Hit) -> Ranked:
        """What a hit says of it that is explained; without its vector."""
        told = hit.explanation or {}
        return cls(
            passage=Passage(
                passage_id=hit.passage_id, document_id=hit.document_id, version="", ordinal=0, text=hit.text,
                start=hit.start, end=hit.end, title=hit.title, uri=hit.uri, headings=tuple(hit.headings),
            ),
            vector=None,
            keyword=hit.scores.keyword or 0.0,
            meaning=hit.scores.vector or 0.0,
            by_keyword=bool(told.get("by_keyword")),
            by_meaning=bool(told.get("by_meaning")),
            fused=hit.scores.fused or 0.0,
            rank=hit.scores.rank,
            explanation=hit.explanation,
        )  # fmt: skip

    @property
    def score(self) -> float:
        """By which it stands where it stands."""
        return self.fused if self.rank is None else self.rank
