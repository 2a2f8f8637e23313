"""A Qdrant server or cluster, by URL: shards and replicas are its own matter, and so is when it makes graphs."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import ApiException, ResponseHandlingException, UnexpectedResponse

from parkway.core.errors import ConfigurationError, IndexUnavailable
from parkway.retrieval.document import Passage
from parkway.retrieval.index.config import IndexConfig
from parkway.retrieval.index.entry import (
    Conditions,
    conditions,
    content_key,
    document_key,
    edition_of,
    entries,
    passage_of,
    query_vector,
    read_edition,
)
from parkway.retrieval.index.index import Candidate, Query, Size, Vectors
from parkway.retrieval.index.words import Terms, Words

MEANING, WORDS = "meaning", "words"

BATCH = 256
"""Passages in one request: some megabytes; servers take 32 at most."""

PAGE = 256
MAX_EDITIONS = 100_000_000
OPTIMISED_S = 3600.0
POLL_S = 0.5

T = TypeVar("T")


class QdrantIndex:
    """An `Index` in a collection of a Qdrant server.

    Several processes may write to it; the same passage written by two of them is there once.
    """

    def __init__(self, client: QdrantClient, collection: str, config: IndexConfig, dimensions: int) -> None:
        """Opens the collection, which is made where there is none. `close` closes the client.

        Raises:
            IndexUnavailable: The server does not answer.
            ConfigurationError: The collection was made for an encoder of other dimensions, or for another language.
        """
        self._client = client
        self._collection = collection
        self._config = config
        self._dimensions = dimensions
        self._words = Words(config.language)
        self._ranges: set[str] = set()
        if not self._ask(client.collection_exists, collection):
            self._create()
        self._check()

    @classmethod
    def connect(cls, config: IndexConfig, collection: str, dimensions: int) -> QdrantIndex:
        """By the URL and the key of the configuration."""
        key = os.environ.get(config.api_key_env) if config.api_key_env else None
        if config.api_key_env and not key:
            raise ConfigurationError(f"index.api_key_env: the environment variable {config.api_key_env} is not set")
        client = QdrantClient(
            url=config.resolved_url(), api_key=key, timeout=max(1, round(config.timeout_s)), check_compatibility=False
        )
        return cls(client, collection, config, dimensions)

    def upsert(self, passages: Sequence[Passage], vectors: Vectors) -> None:
        kept = entries(passages, vectors, self._dimensions)
        self._index_ranges({field for entry in kept for field in entry.numbers})
        rows = np.asarray(vectors, np.float32)
        for start in range(0, len(kept), BATCH):
            points = [
                models.PointStruct(
                    id=kept[at].passage_id,
                    vector={MEANING: rows[at].tolist(), WORDS: _sparse(self._words.of_passage(passages[at].searched))},
                    payload=kept[at].payload(),
                )
                for at in range(start, min(start + BATCH, len(kept)))
            ]
            self._ask(self._client.upsert, self._collection, points=points, wait=True)

    def remove(self, document_id: str, *, but: str | None = None) -> None:
        others: list[Any] = [] if but is None else [_matches("edition", edition_of(document_id, but))]
        chosen = models.Filter(must=[_matches("document", document_key(document_id))], must_not=others)
        selector = models.FilterSelector(filter=chosen)
        self._ask(self._client.delete, self._collection, points_selector=selector, wait=True)

    def search(self, query: Query) -> list[Candidate]:
        wanted = conditions(query.filter)
        terms = self._words.of_query(query.text) if query.keyword_depth > 0 else None
        vector = None if query.vector is None else query_vector(query.vector, self._dimensions)
        if wanted.impossible:
            return []
        requests: list[models.QueryRequest] = []
        if terms is not None and terms.indices:
            requests.append(_request(WORDS, _sparse(terms), query.keyword_depth, wanted, None))
        how = None
        if vector is not None and query.vector_depth > 0:
            how = self._how(query, wanted)
            requests.append(_request(MEANING, vector, query.vector_depth, wanted, how))
        if not requests:
            return []
        answers = self._ask(self._client.query_batch_points, self._collection, requests=requests)
        found = {request.using: answer.points for request, answer in zip(requests, answers, strict=True)}
        missing = how is not None and not how.exact and len(found[MEANING]) < query.vector_depth
        if missing and len(found[MEANING]) < min(query.vector_depth, self._count(wanted, exact=True)):
            # The graph lost its way between passages that the filter leaves out.
            again = _request(MEANING, vector, query.vector_depth, wanted, models.SearchParams(exact=True))
            found[MEANING] = self._ask(self._client.query_batch_points, self._collection, requests=[again])[0].points
        return _candidates(found.get(WORDS, []), found.get(MEANING, []))

    def vectors(self, contents: Sequence[str]) -> dict[str, Vectors]:
        names = {content_key(content): content for content in contents if content}
        missing = list(names)
        found: dict[str, Vectors] = {}
        while missing:
            some = missing[:PAGE]
            chosen = models.Filter(must=[_matches("content", some)])
            page, _ = self._ask(
                self._client.scroll,
                self._collection,
                scroll_filter=chosen,
                limit=4 * PAGE,
                with_payload=["content"],
                with_vectors=[MEANING],
            )
            seen = {_payload(record)["content"]: record for record in page}
            found |= {names[key]: _vector(record) for key, record in seen.items()}
            # A content that many passages have may have filled the page: the others are asked for again.
            full = len(page) == 4 * PAGE
            missing = [key for key in some if full and key not in seen] + missing[PAGE:]
        return found

    def passages(self, document_id: str) -> list[Passage]:
        chosen = models.Filter(must=[_matches("document", document_key(document_id))])
        found: list[Passage] = []
        offset: Any = None
        while True:
            page, offset = self._ask(
                self._client.scroll,
                self._collection,
                scroll_filter=chosen,
                limit=PAGE,
                offset=offset,
                with_payload=["passage"],
            )
            found += [passage_of(_payload(record)["passage"]) for record in page]
            if offset is None:
                return sorted(found, key=lambda passage: (passage.version, passage.ordinal))

    def documents(self) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        facet = self._ask(self._client.facet, self._collection, key="edition", limit=MAX_EDITIONS, exact=True)
        for hit in facet.hits:
            if hit.count:
                document_id, version = read_edition(str(hit.value))
                found.setdefault(document_id, set()).add(version)
        return found

    def optimise(self) -> bool:
        """Waits until the server has done what it does by itself: it cannot be told to."""
        deadline = time.monotonic() + OPTIMISED_S
        worked = False
        while self._ask(self._client.get_collection, self._collection).status != models.CollectionStatus.GREEN:
            worked = True
            if time.monotonic() > deadline:
                raise IndexUnavailable(f"Qdrant: {self._collection} is not optimised after {OPTIMISED_S:g} s")
            time.sleep(POLL_S)
        return worked

    def size(self) -> Size:
        info = self._ask(self._client.get_collection, self._collection)
        passages = self._ask(self._client.count, self._collection, exact=True).count
        return Size(passages, min(passages, info.indexed_vectors_count or 0))

    def close(self) -> None:
        self._client.close()

    def _count(self, wanted: Conditions, *, exact: bool) -> int:
        return self._ask(self._client.count, self._collection, count_filter=_filter(wanted), exact=exact).count

    def _how(self, query: Query, wanted: Conditions) -> models.SearchParams:
        config = self._config
        if query.exact or self._count(wanted, exact=False) <= config.exact_below:
            return models.SearchParams(exact=True)
        return models.SearchParams(
            hnsw_ef=max(query.effort or config.ef, query.vector_depth),
            quantization=models.QuantizationSearchParams(rescore=True, oversampling=config.oversampling),
            acorn=models.AcornSearchParams(enable=True),
        )

    def _create(self) -> None:
        config, memory = self._config, self._config.memory
        quantised = (
            models.ScalarQuantization(
                scalar=models.ScalarQuantizationConfig(
                    type=models.ScalarType.INT8, quantile=0.99, always_ram=memory.quantised != "disk"
                )
            )
            if config.quantisation == "int8"
            else None
        )
        self._ask(
            self._client.create_collection,
            self._collection,
            vectors_config={
                MEANING: models.VectorParams(
                    size=self._dimensions, distance=models.Distance.COSINE, on_disk=memory.vectors == "disk"
                )
            },
            sparse_vectors_config={
                WORDS: models.SparseVectorParams(
                    modifier=models.Modifier.IDF, index=models.SparseIndexParams(on_disk=memory.words == "disk")
                )
            },
            on_disk_payload=memory.passages == "disk",
            hnsw_config=models.HnswConfigDiff(
                m=config.m, ef_construct=config.ef_construct, on_disk=memory.graph == "disk"
            ),
            quantization_config=quantised,
            metadata={"parkway_language": config.language},
        )
        for name in ("access", "facts", "document", "content"):
            self._index(name, models.UuidIndexParams(type=models.UuidIndexType.UUID))
        self._index("edition", models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD))

    def _check(self) -> None:
        info = self._ask(self._client.get_collection, self._collection)
        named = info.config.params.vectors
        has = named[MEANING].size if isinstance(named, dict) and MEANING in named else None
        language = (info.config.metadata or {}).get("parkway_language", self._config.language)
        for name, was, is_now in (
            ("dimensions", has, self._dimensions), ("language", language, self._config.language),
        ):  # fmt: skip
            if was != is_now:
                raise ConfigurationError(
                    f"the collection {self._collection} of Qdrant was made for the {name} {was}, the configuration "
                    f"says {is_now}. Change it back, or delete the collection; the documents are indexed anew"
                )
        self._ranges = set(info.payload_schema or {})

    def _index_ranges(self, fields: set[str]) -> None:
        for field in sorted(fields):
            name = f"numbers.{field}"
            if name not in self._ranges:
                self._index(name, models.FloatIndexParams(type=models.FloatIndexType.FLOAT))
                self._ranges.add(name)

    def _index(self, name: str, schema: Any) -> None:
        self._ask(self._client.create_payload_index, self._collection, name, schema, wait=True)

    def _ask(self, call: Callable[..., T], *arguments: Any, **named: Any) -> T:
        """Asks the server.

        Raises:
            IndexUnavailable: It does not answer, or refuses.
        """
        try:
            return call(*arguments, **named)
        except UnexpectedResponse as error:
            told = error.content.decode("utf-8", "replace")[:500]
            raise IndexUnavailable(f"Qdrant answered with status {error.status_code}: {told}") from error
        except ResponseHandlingException as error:
            raise IndexUnavailable(f"Qdrant does not answer: {error.source}") from error
        except (ApiException, OSError, ValueError) as error:  # ValueError: what came is not JSON
            raise IndexUnavailable(f"Qdrant does not answer: {error}") from error


def _request(
    using: str, vector: Any, depth: int, wanted: Conditions, how: models.SearchParams | None
) -> models.QueryRequest:
    return models.QueryRequest(
        query=vector,
        using=using,
        filter=_filter(wanted),
        params=how,
        limit=depth,
        with_payload=["passage"],
        with_vector=[MEANING],
    )


def _filter(wanted: Conditions) -> models.Filter:
    must: list[Any] = [_matches("access", wanted.access)]
    if wanted.documents is not None:
        must.append(_matches("document", wanted.documents))
    if wanted.passages is not None:
        must.append(models.HasIdCondition(has_id=list(wanted.passages)))
    must += [_matches("facts", group) for group in wanted.facts]
    for each in wanted.ranges:
        between = models.Range(gte=each.at_least, lte=each.at_most)
        must.append(models.FieldCondition(key=f"numbers.{each.field}", range=between))
    return models.Filter(must=must)


def _matches(key: str, value: str | list[str]) -> models.FieldCondition:
    match = models.MatchAny(any=value) if isinstance(value, list) else models.MatchValue(value=value)
    return models.FieldCondition(key=key, match=match)


def _sparse(terms: Terms) -> models.SparseVector:
    return models.SparseVector(indices=terms.indices, values=terms.weights)


def _payload(point: models.Record | models.ScoredPoint) -> dict[str, Any]:
    return point.payload or {}


def _vector(point: models.Record | models.ScoredPoint) -> Vectors:
    named: Any = point.vector
    return np.array(named[MEANING], np.float32)


def _candidates(by_words: Sequence[Any], by_meaning: Sequence[Any]) -> list[Candidate]:
    keyword = {point.id: point for point in by_words}
    meaning = {point.id: point for point in by_meaning}
    return [
        Candidate(
            passage=passage_of(_payload(point)["passage"]),
            keyword_score=keyword[name].score if name in keyword else None,
            vector_score=meaning[name].score if name in meaning else None,
            vector=_vector(point),
        )
        for name, point in (keyword | meaning).items()
    ]
