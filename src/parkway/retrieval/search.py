"""A search in one collection: from the query to the hits."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import numpy as np
from pydantic import Field

from parkway.core.configuration import Section
from parkway.core.knowledge import Found, Hit, Range, Scores, Search
from parkway.retrieval.document import Value
from parkway.retrieval.index.index import Between, Candidate, Filter, Index, Query, Vectors
from parkway.retrieval.query_vectors import QueryVectors
from parkway.retrieval.ranking.candidate import Ranked
from parkway.retrieval.ranking.diversity import diverse
from parkway.retrieval.ranking.duplicates import without_duplicates
from parkway.retrieval.ranking.fusion import fuse
from parkway.retrieval.ranking.ranker import Ranker

CHOICE = 4
"""So many times as many passages as are wanted are what diverse hits are chosen from."""

Clock = Callable[[], float]


class SearchConfig(Section):
    """How a collection is searched.

    Fields:
        depth: passages of each list, by words and by meaning; never fewer than the hits that are wanted.
        duplicates: whether a passage that says the same in the same words as one before it is left out.
    """

    depth: int = Field(default=100, ge=1, le=1000)
    duplicates: bool = True


class Searcher:
    """Searches the indexes of a collection, one for each partition. Threads may search at once."""

    def __init__(
        self,
        collection: str,
        indexes: Sequence[Index],
        vectors: QueryVectors,
        ranker: Ranker,
        config: SearchConfig | None = None,
        clock: Clock = time.perf_counter,
    ) -> None:
        """
        Args:
            indexes: Open; at least one. `close` does not close them.
            clock: Seconds.
        """
        self._collection = collection
        self._indexes = list(indexes)
        self._vectors = vectors
        self._ranker = ranker
        self._config = config or SearchConfig()
        self._clock = clock
        self._beside = ThreadPoolExecutor(len(indexes), f"search/{collection}") if len(indexes) > 1 else None

    def search(self, asked: Search, principals: frozenset[str]) -> Found:
        """What is found for those who ask.

        Raises:
            InvalidRequest: A filter cannot be understood.
            IndexUnavailable: A partition does not answer: nothing is found rather than a part of it.
        """
        began = self._clock()
        vector = self._vectors.of(asked.query)
        embedded = self._clock()
        found = self.candidates(asked, vector, principals)
        searched = self._clock()
        ranked = self._ranked(asked, vector, found)
        if self._clock() - searched > asked.budget_ms / 1000:
            ranked = found
            for one in found:
                one.rank = one.explanation = None
        hits = self._chosen(ranked, asked)
        confidence = self._ranker.confidence(asked.query, hits)
        ended = self._clock()
        took = {"embed": embedded - began, "search": searched - embedded, "rank": ended - searched}
        return Found(
            hits=[_hit(self._collection, one) for one in hits],
            confidence=confidence,
            took_ms={name: round(each * 1000, 3) for name, each in (took | {"total": ended - began}).items()},
        )

    def close(self) -> None:
        """Lets its threads end."""
        if self._beside is not None:
            self._beside.shutdown(cancel_futures=True)

    def candidates(self, asked: Search, vector: Vectors, principals: frozenset[str]) -> list[Ranked]:
        """What is in either list, fused; each with both scores."""
        depth = max(self._config.depth, asked.limit)
        allowed = wanted(asked, principals)
        query = Query(asked.query, vector, allowed, keyword_depth=depth, vector_depth=depth)

        def one(index: Index) -> list[Ranked]:
            return complete(index, query)

        if self._beside is None:
            return fuse(one(self._indexes[0]))
        found = {each.passage.passage_id: each for part in self._beside.map(one, self._indexes) for each in part}
        return fuse(_best(list(found.values()), depth))

    def _ranked(self, asked: Search, vector: Vectors, found: list[Ranked]) -> list[Ranked]:
        return self._ranker.order(vector, found, explain=asked.explain) if asked.rerank else found

    def _chosen(self, ranked: list[Ranked], asked: Search) -> list[Ranked]:
        enough = asked.limit * (CHOICE if asked.diversity > 0 else 1)
        different = list(islice(without_duplicates(ranked), enough)) if self._config.duplicates else ranked[:enough]
        return diverse(different, asked.limit, asked.diversity)


def wanted(asked: Search, principals: frozenset[str]) -> Filter:
    """What a search may find at all, in the words of the index."""
    return Filter(
        principals=principals,
        metadata={name: _value(value) for name, value in asked.filter.items()},
        documents=None if asked.documents is None else frozenset(asked.documents),
    )


def complete(index: Index, query: Query) -> list[Ranked]:
    """What is in either list, each with both of its scores: what one list has not, is asked for."""
    found = index.search(query)
    missing = frozenset(one.passage.passage_id for one in found if one.keyword_score is None)
    keyword: dict[str, float] = {}
    # A list by words that is not full has all that has any of them.
    if missing and len(found) - len(missing) >= query.keyword_depth:
        allowed = query.filter
        only = Filter(allowed.principals, allowed.metadata, allowed.documents, missing)
        again = index.search(Query(query.text, None, only, keyword_depth=len(missing)))
        keyword = {one.passage.passage_id: one.keyword_score or 0.0 for one in again}
    return [_with_both(one, query.vector, keyword) for one in found]


def _with_both(one: Candidate, vector: Vectors, keyword: dict[str, float]) -> Ranked:
    stored = one.vector
    return Ranked(
        passage=one.passage,
        vector=stored,
        keyword=keyword.get(one.passage.passage_id, 0.0) if one.keyword_score is None else one.keyword_score,
        meaning=float(np.dot(stored, vector)) if one.vector_score is None else one.vector_score,
        by_keyword=one.keyword_score is not None,
        by_meaning=one.vector_score is not None,
    )


def _best(found: list[Ranked], depth: int) -> list[Ranked]:
    """What would be in the lists if the partitions were one: the best `depth` of each kind."""
    for one in sorted((one for one in found if one.by_keyword), key=lambda one: -one.keyword)[depth:]:
        one.by_keyword = False
    for one in sorted((one for one in found if one.by_meaning), key=lambda one: -one.meaning)[depth:]:
        one.by_meaning = False
    return [one for one in found if one.by_keyword or one.by_meaning]


def _value(value: Value | Range) -> Value | tuple[Value, ...] | Between:
    if isinstance(value, Range):
        return Between(value.gte, value.lte)
    return tuple(value) if isinstance(value, list) else value


def _hit(collection: str, one: Ranked) -> Hit:
    passage = one.passage
    return Hit(
        passage_id=passage.passage_id,
        document_id=passage.document_id,
        collection=collection,
        text=passage.text,
        start=passage.start,
        end=passage.end,
        scores=Scores(keyword=one.keyword, vector=one.meaning, fused=one.fused, rank=one.rank),
        title=passage.title,
        uri=passage.uri,
        headings=list(passage.headings),
        page=passage.page,
        metadata=passage.metadata,
        explanation=one.explanation,
    )
