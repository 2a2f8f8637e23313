"""A search in one collection: from the query to the hits."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import msgspec
import numpy as np

from parkway.core.knowledge import Found, Hit, Range, Scores, Search
from parkway.retrieval.catalogue import document_id
from parkway.retrieval.config import UPLOADS, SearchConfig
from parkway.retrieval.document import Value
from parkway.retrieval.index.index import Between, Candidate, Filter, Index, Query, Vectors
from parkway.retrieval.kept import Kept, Tally
from parkway.retrieval.query_vectors import QueryVectors
from parkway.retrieval.ranking.candidate import Ranked
from parkway.retrieval.ranking.config import RankingConfig
from parkway.retrieval.ranking.cross_ranking import CrossRanking
from parkway.retrieval.ranking.diversity import diverse
from parkway.retrieval.ranking.duplicates import without_duplicates
from parkway.retrieval.ranking.fusion import fuse
from parkway.retrieval.ranking.ranker import Ranker

CHOICE = 4
"""So many times as many passages as are wanted are what diverse hits are chosen from."""

Clock = Callable[[], float]

_MOST_KEPT = 10_000
_HIT_BYTES = 1024  # beside what it says

_encode = msgspec.msgpack.Encoder(order="deterministic").encode


@dataclass(frozen=True, slots=True)
class _How:
    """What may change between two searches, and what was found since it did."""

    config: SearchConfig
    ranking: RankingConfig
    shown: Callable[[str], str]
    kept: Kept[Found]


class Searcher:
    """Searches the indexes of a collection, one for each partition. Threads may search at once.

    What was found is kept until anything in the collection changes, for those who ask the same with the same rights.
    """

    def __init__(
        self,
        collection: str,
        indexes: Sequence[Index],
        vectors: QueryVectors,
        ranker: Ranker,
        config: SearchConfig | None = None,
        clock: Clock = time.perf_counter,
        *,
        revisions: Sequence[Callable[[], str]] = (),
        shown: Callable[[str], str] = str,
        tally: Tally | None = None,
        ranking: RankingConfig | None = None,
        cross: CrossRanking | None = None,
    ) -> None:
        """
        Args:
            indexes: Open; at least one. `close` does not close them.
            clock: Seconds.
            revisions: Say whether the indexes have changed: another one each time. Several may block, and are asked at
                once. Without, nothing is kept.
            shown: What the URI of a document that was not sent is told as.
            tally: Of what was kept.
        """
        self._collection = collection
        self._indexes = list(indexes)
        self._vectors = vectors
        self._rankers: tuple[Ranker, CrossRanking | None] = (ranker, cross)
        self._clock = clock
        self._revisions = revisions
        self._tally = tally or Tally()
        self._beside = ThreadPoolExecutor(len(indexes), f"search/{collection}") if len(indexes) > 1 else None
        self.configure(config or SearchConfig(), ranking or RankingConfig(), shown)

    def configure(self, config: SearchConfig, ranking: RankingConfig, shown: Callable[[str], str]) -> None:
        """Other settings from the next search on."""
        self._how = _How(config, ranking, shown, Kept(_MOST_KEPT, config.cache_bytes, _bytes_of, self._tally))

    def rank_by(self, ranker: Ranker, cross: CrossRanking | None) -> None:
        """Has other rankers from now on; searches that run go on with those that they began with."""
        self._rankers = (ranker, cross)
        self.forget()

    def forget(self) -> None:
        """Something has changed: nothing that was found before is told again."""
        self._how.kept.clear()

    def search(self, asked: Search, principals: frozenset[str]) -> Found:
        """What is found for those who ask.

        Raises:
            InvalidRequest: A filter cannot be understood.
            IndexUnavailable: A partition does not answer: nothing is found rather than a part of it.
        """
        how = self._how
        # Before the search: what changes while it runs is not in what is kept under it.
        version = self._version()
        if not version or not how.config.cache_bytes:
            return self._find(asked, principals, version, how)[0]
        began = self._clock()
        said = hashlib.blake2b(_encode([asked, sorted(principals)]), digest_size=32).digest()
        found, again = how.kept.of((version, said), lambda: self._find(asked, principals, version, how))
        if not again:
            return found
        took_ms = {"total": _ms(self._clock() - began)}
        return msgspec.structs.replace(found, cached=True, took_ms=took_ms)

    def close(self) -> None:
        """Lets its threads end."""
        if self._beside is not None:
            self._beside.shutdown(cancel_futures=True)

    def _version(self) -> str:
        """Of all partitions; empty where it is not known."""
        if self._beside is None or len(self._revisions) < 2:
            return self._revisions[0]() if self._revisions else ""
        revisions = list(self._beside.map(lambda revision: revision(), self._revisions))
        return hashlib.sha256(_encode(revisions)).hexdigest()[:16]

    def _find(self, asked: Search, principals: frozenset[str], version: str, how: _How) -> tuple[Found, bool]:
        """What is found, and whether there was time for all of it: then it is as good the next time."""
        began = self._clock()
        vector = self._vectors.of(asked.query)
        embedded = self._clock()
        found = self.candidates(asked, vector, principals)
        searched = self._clock()
        ranker, cross = self._rankers
        until = searched + (asked.budget_ms or how.ranking.budget_ms) / 1000
        ranked, in_time = self._ranked(asked, vector, found, ranker, until)
        ordered = self._clock()
        if asked.rerank and in_time and cross is not None:
            ranked, in_time = cross.order(asked.query, ranked, until - ordered, explain=asked.explain)
        read = self._clock()
        hits = _chosen(ranked, asked, how.config)
        confidence = ranker.confidence(asked.query, hits)
        if cross is not None:
            confidence = cross.confidence(confidence, ranked)
        ended = self._clock()
        took = {"embed": embedded - began, "search": searched - embedded, "rank": ended - searched - (read - ordered)}
        if cross is not None:
            took["read"] = read - ordered
        told = Found(
            hits=[_hit(self._collection, one, how.shown) for one in hits],
            confidence=confidence,
            took_ms={name: _ms(each) for name, each in (took | {"total": ended - began}).items()},
            version=version,
        )
        return told, in_time

    def candidates(self, asked: Search, vector: Vectors, principals: frozenset[str]) -> list[Ranked]:
        """What is in either list, fused; each with both scores."""
        depth = max(self._how.config.depth, asked.limit)
        allowed = wanted(asked, principals)
        query = Query(asked.query, vector, allowed, keyword_depth=depth, vector_depth=depth)

        def one(index: Index) -> list[Ranked]:
            return complete(index, query)

        if self._beside is None:
            return fuse(one(self._indexes[0]))
        found = {each.passage.passage_id: each for part in self._beside.map(one, self._indexes) for each in part}
        return fuse(_best(list(found.values()), depth))

    def _ranked(
        self, asked: Search, vector: Vectors, found: list[Ranked], ranker: Ranker, until: float
    ) -> tuple[list[Ranked], bool]:
        """In the order of the ranker; or as they were, where that took too long."""
        if not asked.rerank:
            return found, True
        ranked = ranker.order(vector, found, explain=asked.explain)
        if self._clock() <= until:
            return ranked, True
        for one in found:
            one.rank = one.explanation = None
        return found, False


def _chosen(ranked: list[Ranked], asked: Search, config: SearchConfig) -> list[Ranked]:
    diversity = config.diversity if asked.diversity is None else asked.diversity
    enough = asked.limit * (CHOICE if diversity > 0 else 1)
    different = list(islice(without_duplicates(ranked), enough)) if config.duplicates else ranked[:enough]
    return diverse(different, asked.limit, diversity)


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


def _hit(collection: str, one: Ranked, shown: Callable[[str], str]) -> Hit:
    passage = one.passage
    sent = passage.document_id == document_id(collection, UPLOADS, passage.uri)
    return Hit(
        passage_id=passage.passage_id,
        document_id=passage.document_id,
        collection=collection,
        text=passage.text,
        start=passage.start,
        end=passage.end,
        scores=Scores(keyword=one.keyword, vector=one.meaning, fused=one.fused, rank=one.rank),
        title=passage.title,
        uri=passage.uri if sent else shown(passage.uri),
        headings=list(passage.headings),
        page=passage.page,
        metadata=passage.metadata,
        explanation=one.explanation,
    )


def _bytes_of(found: Found) -> int:
    return _HIT_BYTES * (1 + len(found.hits)) + len(_encode(found))


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
