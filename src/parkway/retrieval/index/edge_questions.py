"""What an index of Qdrant Edge is asked, by its owner and by replicas of it alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import qdrant_edge as edge

from parkway.retrieval.document import Passage
from parkway.retrieval.index.apply import Turns
from parkway.retrieval.index.config import IndexConfig
from parkway.retrieval.index.entry import (
    Conditions,
    conditions,
    content_key,
    document_key,
    passage_of,
    query_vector,
    read_edition,
)
from parkway.retrieval.index.generation import MEANING, WORDS, Generation, Request, vector_in
from parkway.retrieval.index.index import Candidate, Query, Vectors
from parkway.retrieval.index.words import Words


class EdgeQuestions:
    """The questions of an `Index` to the generation that is open; another may take its place at any time."""

    _generation: Generation

    def __init__(self, directory: Path, config: IndexConfig, dimensions: int) -> None:
        self.directory = directory
        self._config = config
        self._dimensions = dimensions
        self._words = Words(config.language)
        self._turns = Turns()
        self._open = True
        """Everybody may see everything: asking that of each passage would take longer than finding it."""

    def _check_open(self) -> None:
        """Raises: IndexUnavailable."""
        raise NotImplementedError

    def search(self, query: Query) -> list[Candidate]:
        wanted = conditions(query.filter)
        terms = self._words.of_query(query.text) if query.keyword_depth > 0 else None
        vector = None if query.vector is None else query_vector(query.vector, self._dimensions)
        if wanted.impossible:
            return []
        allowed = None if self._open and wanted.only_access else wanted
        requests: list[Request] = []
        if terms is not None and terms.indices:
            requests.append((WORDS, edge.SparseVector(terms.indices, terms.weights), query.keyword_depth, None))
        with self._turns, self._current() as generation:
            if vector is not None and query.vector_depth > 0:
                requests.append((MEANING, vector, query.vector_depth, self._how(query, wanted, generation)))
            if not requests:
                return []
            found = dict(zip((request[0] for request in requests), generation.search(requests, allowed), strict=True))
            using, _, depth, how = requests[-1]
            missing = how is not None and not how.exact and len(found[using]) < depth
            if missing and len(found[using]) < min(depth, generation.count(wanted, exact=True)):
                # The graph lost its way between passages that the filter leaves out.
                exact: Request = (using, vector, depth, edge.SearchParams(exact=True))
                found[using] = generation.search([exact], allowed)[0]
        candidates = _candidates(found.get(WORDS, ()), found.get(MEANING, ()))
        if allowed is not None:
            return candidates
        # One that not everybody may see may have come in this very moment.
        seen_by = query.filter.seen_by
        return [one for one in candidates if not seen_by.isdisjoint(one.passage.access)]

    def vectors(self, contents: Sequence[str]) -> dict[str, Vectors]:
        found: dict[str, Vectors] = {}
        with self._current() as generation:
            for content in dict.fromkeys(contents):
                if content and (vector := generation.vector_of(content_key(content))) is not None:
                    found[content] = vector
        return found

    def passages(self, document_id: str) -> list[Passage]:
        with self._current() as generation:
            found = [passage_of(text) for text in generation.of_document(document_key(document_id))]
        return sorted(found, key=lambda passage: (passage.version, passage.ordinal))

    def documents(self) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        with self._current() as generation:
            for edition in generation.editions():
                document_id, version = read_edition(edition)
                found.setdefault(document_id, set()).add(version)
        return found

    @contextmanager
    def _current(self) -> Iterator[Generation]:
        while True:
            self._check_open()
            generation = self._generation
            with generation:
                if generation is self._generation:
                    yield generation
                    return

    def _how(self, query: Query, wanted: Conditions, generation: Generation) -> edge.SearchParams:
        config = self._config
        if query.exact or generation.count(wanted, exact=False) <= config.exact_below:
            return edge.SearchParams(exact=True)
        return edge.SearchParams(
            hnsw_ef=max(query.effort or config.ef, query.vector_depth),
            quantization=edge.QuantizationSearchParams(rescore=True, oversampling=config.oversampling),
            acorn=edge.AcornSearchParams(enable=True),
        )


class _Found(Candidate):
    """Reads its vector when it is asked for: 200 lists of 384 numbers take longer than the search that found them."""

    __slots__ = ("_point",)

    def __init__(
        self, point: edge.ScoredPoint, keyword: edge.ScoredPoint | None, meaning: edge.ScoredPoint | None
    ) -> None:
        put = object.__setattr__
        put(self, "passage", passage_of(point.payload["passage"]))  # pyright: ignore[reportOptionalSubscript]
        put(self, "keyword_score", keyword.score if keyword else None)
        put(self, "vector_score", meaning.score if meaning else None)
        put(self, "_point", point)

    @property
    def vector(self) -> Vectors:  # pyright: ignore[reportIncompatibleVariableOverride]
        return vector_in(self._point)


def _candidates(by_words: Sequence[edge.ScoredPoint], by_meaning: Sequence[edge.ScoredPoint]) -> list[Candidate]:
    keyword = {point.id: point for point in by_words}
    meaning = {point.id: point for point in by_meaning}
    return [_Found(point, keyword.get(name), meaning.get(name)) for name, point in (keyword | meaning).items()]
