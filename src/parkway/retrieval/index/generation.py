"""One directory of Qdrant Edge: the passages of an index with their graphs, until the next generation takes its place.

Every call of Edge 0.9 holds the interpreter's lock from beginning to end (measured: other threads stand still for all
of it, minutes in `optimize`). So what is large is done in pieces here, and what cannot be done in pieces is done by
`rebuild.py`, in a process of its own.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import qdrant_edge as edge

from parkway.core.errors import IndexDamaged, IndexUnavailable
from parkway.retrieval.index.config import IndexConfig, Place
from parkway.retrieval.index.entry import Conditions, Entry
from parkway.retrieval.index.index import Vectors
from parkway.retrieval.index.journal import sync_directory
from parkway.retrieval.index.read_ahead import free_memory_bytes, read_ahead
from parkway.retrieval.index.words import Terms

MEANING, WORDS = "meaning", "words"

SLICE = 8
"""Passages that are written in one call: between two calls searches have their turn."""

PAGE = 256
MAX_EDITIONS = 100_000_000
MAX_RANGE_FIELDS = 64
"""Fields of metadata whose numbers have an index; ranges of further ones read the passages themselves."""

Request = tuple[str, Any, int, edge.SearchParams | None]
"""What is searched (`MEANING`, `WORDS`), by which vector, how many are wanted, and how."""

_BUILT = "parkway.json"

_FIXED = (
    *("matrix.dat", "quantized.data", "links_compressed.bin"),
    *("inverted_index.dat", "indices_tracker.json", "point_to_values.bin", "values_to_points.bin"),
)

_PLACES = {"disk": edge.Memory.Cold, "cached": edge.Memory.Cached, "pinned": edge.Memory.Pinned}


class Generation:
    """A shard of Edge. Threads may call it at once; changes are for one thread at a time.

    What it is told lies on disk after `flush` alone.
    """

    def __init__(self, directory: Path, shard: edge.EdgeShard) -> None:
        self.directory = directory
        self._shard = shard
        self._users = 0
        self._lock = threading.Lock()
        self._retired: Callable[[], None] | None = None
        self._ranges = set(shard.info().payload_schema)
        built = directory / _BUILT
        self.built: dict[str, int] = json.loads(built.read_text()) if built.exists() else {"mark": 0, "points": 0}

    @classmethod
    def create(cls, directory: Path, config: IndexConfig, dimensions: int) -> Generation:
        """An empty one."""
        directory.mkdir()
        shard = edge.EdgeShard.create(str(directory), _edge_config(config, dimensions))
        # Graphs of the passages with one value in common are made for what most searches are limited by.
        for name, in_graph in (("access", True), ("facts", True), ("document", False), ("content", False)):
            parameters = edge.UuidIndexParams(enable_hnsw=in_graph, memory=edge.Memory.Cached)
            shard.update(edge.UpdateOperation.create_field_index(name, parameters))
        keyword = edge.KeywordIndexParams(enable_hnsw=False, memory=edge.Memory.Cached)
        shard.update(edge.UpdateOperation.create_field_index("edition", keyword))
        mark = edge.IntegerIndexParams(lookup=False, range=True, enable_hnsw=False, memory=edge.Memory.Cached)
        shard.update(edge.UpdateOperation.create_field_index("mark", mark))
        shard.flush()
        return cls(directory, shard)

    @classmethod
    def load(cls, directory: Path, config: tuple[IndexConfig, int] | None = None) -> Generation:
        """One that is there; with a configuration and dimensions it is made anew by that when it is optimised.

        Raises:
            IndexDamaged: It cannot be read.
        """
        try:
            _verify(directory)
            read_ahead(path for path in _files(directory) if not _is_cold(path))
            shard = edge.EdgeShard.load(str(directory), _edge_config(*config) if config else None)
        except IndexDamaged:
            raise
        except BaseException as error:
            if not _is_edges(error):
                raise
            raise IndexDamaged(f"{directory}: Qdrant Edge cannot read it: {str(error)[:500]}") from error
        return cls(directory, shard)

    def warm(self) -> None:
        """Reads what lies on the disk ahead, if half of the memory that is free has room for it. Takes a while."""
        read_ahead([path for path in _files(self.directory) if _is_cold(path)], most_bytes=free_memory_bytes() // 2)

    # Changes

    def write(self, entries: Sequence[Entry], vectors: Vectors, terms: Sequence[Terms], mark: int) -> None:
        """Puts passages in, or over those with the same id."""
        points: list[edge.Point] = []
        for entry, vector, words in zip(entries, vectors, terms, strict=True):
            named = {MEANING: memoryview(vector), WORDS: edge.SparseVector(words.indices, words.weights)}
            points.append(edge.Point(entry.passage_id, named, {**entry.payload(), "mark": mark}))
        self._ask(self._shard.update, edge.UpdateOperation.upsert_points(points))

    def remove(self, document: str, but: str | None) -> None:
        """Removes the passages of the document with this key, apart from those of the edition `but`."""
        self._ask(self._shard.update, edge.UpdateOperation.delete_points_by_filter(_of_document(document, but)))

    def index_ranges(self, fields: Iterable[str]) -> None:
        """Makes indexes of numbers that have none: at once with few passages, in minutes with many."""
        for field in fields:
            name = f"numbers.{field}"
            if name in self._ranges or sum(known.startswith("numbers.") for known in self._ranges) >= MAX_RANGE_FIELDS:
                continue
            parameters = edge.FloatIndexParams(enable_hnsw=False, memory=edge.Memory.Cached)
            self._ask(self._shard.update, edge.UpdateOperation.create_field_index(name, parameters))
            self._ranges.add(name)

    def flush(self) -> None:
        """Brings all changes to disk."""
        _sync_files(self.directory)  # others may run meanwhile; then `flush` itself has little left
        self._ask(self._shard.flush)
        sync_directory(self.directory)

    def optimise(self, mark: int) -> None:
        """Makes graphs of what has none, and leaves nothing of what was removed. Minutes, in which no thread runs.

        Args:
            mark: The highest that a passage carries now.
        """
        self._ask(self._shard.optimize)
        self.flush()
        self.built = {"mark": mark, "points": self.passages}
        sizes = {str(path.relative_to(self.directory)): path.stat().st_size for path in _only_growing(self.directory)}
        (self.directory / "files.json").write_text(json.dumps(sizes))
        (self.directory / _BUILT).write_text(json.dumps(self.built))
        _sync_files(self.directory)
        sync_directory(self.directory)

    # Questions

    @property
    def passages(self) -> int:
        return self._ask(self._shard.info).points_count

    def written_since_built(self) -> int:
        """How many passages stand in no graph."""
        later = edge.FieldCondition("mark", range=edge.RangeFloat(gt=self.built["mark"]))
        return self._ask(self._shard.count, edge.CountRequest(True, edge.Filter(must=[later])))

    def known(self, passage_ids: Sequence[str]) -> int:
        """How many of these are there."""
        return len(self._ask(self._shard.retrieve, list(passage_ids), False, False))

    def has(self, document: str, but: str | None) -> bool:
        """Whether `remove` would remove anything."""
        return self._ask(self._shard.count, edge.CountRequest(True, _of_document(document, but))) > 0

    def count(self, wanted: Conditions, *, exact: bool) -> int:
        return self._ask(self._shard.count, edge.CountRequest(exact, _filter(wanted)))

    def search(self, requests: list[Request], wanted: Conditions | None) -> list[Any]:
        """Lists of points, the best first: one for each request. Without conditions all may be found."""
        allowed = None if wanted is None else _filter(wanted)
        queries = [
            edge.QueryRequest(
                limit=limit,
                query=edge.Query.Nearest(query, using=using),
                filter=allowed,
                params=params,
                with_payload=["passage"],
                with_vector=[MEANING],
            )
            for using, query, limit, params in requests
        ]
        return self._ask(self._shard.query_batch, edge.QueryBatchRequest(queries))

    def vector_of(self, content: str) -> Vectors | None:
        """The vector of a passage with the content of this key."""
        same = edge.Filter(must=[edge.FieldCondition("content", match=edge.MatchValue(content))])
        found, _ = self._ask(
            self._shard.scroll, edge.ScrollRequest(limit=1, filter=same, with_payload=False, with_vector=[MEANING])
        )
        return vector_in(found[0]) if found else None

    def of_document(self, document: str) -> Iterator[str]:
        """The passages of the document with this key, as JSON, in no order."""
        offset: Any = None
        while True:
            page, offset = self._ask(
                self._shard.scroll,
                edge.ScrollRequest(offset, limit=PAGE, filter=_of_document(document, None), with_payload=["passage"]),
            )
            yield from (record.payload["passage"] for record in page)
            if offset is None:
                return

    def editions(self) -> list[str]:
        """All that are there, each once."""
        hits = self._ask(self._shard.facet, edge.FacetRequest("edition", limit=MAX_EDITIONS, exact=True))
        return [str(hit.value) for hit in hits if hit.count]

    def _ask(self, call: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """Calls Edge.

        Raises:
            IndexUnavailable: It failed.
        """
        try:
            return call(*arguments, **named)
        except BaseException as error:
            if not _is_edges(error):
                raise
            raise IndexUnavailable(f"{self.directory}: Qdrant Edge: {str(error)[:500]}") from error

    # Its end

    def __enter__(self) -> Generation:
        """Keeps it open until the end of the block."""
        with self._lock:
            self._users += 1
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._users -= 1
            done = self._retired if self._users == 0 else None
        if done is not None:
            done()

    def retire(self, *, delete: bool) -> None:
        """Closes it as soon as nobody uses it any more, and deletes it."""

        def done() -> None:
            self._shard.close()
            if delete:
                shutil.rmtree(self.directory, ignore_errors=True)

        with self._lock:
            self._retired = done
            unused = self._users == 0
        if unused:
            done()


def _is_edges(error: BaseException) -> bool:
    """Whether it comes from Edge, which raises nothing but `Exception` itself, and panics that are none."""
    return type(error) is Exception or type(error).__name__ == "PanicException"


def vector_in(point: Any) -> Vectors:
    """The vector of a point that Edge has given back."""
    return np.array(point.vector[MEANING], np.float32)


def _of_document(document: str, but: str | None) -> edge.Filter:
    same = edge.FieldCondition("document", match=edge.MatchValue(document))
    if but is None:
        return edge.Filter(must=[same])
    return edge.Filter(must=[same], must_not=[edge.FieldCondition("edition", match=edge.MatchValue(but))])


def _filter(wanted: Conditions) -> edge.Filter:
    must: list[Any] = [edge.FieldCondition("access", match=edge.MatchAny(wanted.access))]
    if wanted.documents is not None:
        must.append(edge.FieldCondition("document", match=edge.MatchAny(wanted.documents)))
    if wanted.passages is not None:
        must.append(edge.HasIdCondition(set(wanted.passages)))
    must += [edge.FieldCondition("facts", match=edge.MatchAny(group)) for group in wanted.facts]
    for each in wanted.ranges:
        between = edge.RangeFloat(gte=each.at_least, lte=each.at_most)
        must.append(edge.FieldCondition(f"numbers.{each.field}", range=between))
    return edge.Filter(must=must)


def _edge_config(config: IndexConfig, dimensions: int) -> edge.EdgeConfig:
    def place(of: Place) -> edge.Memory:
        return _PLACES[of]

    memory = config.memory
    quantised = (
        edge.ScalarQuantizationConfig(edge.ScalarType.Int8, quantile=0.99, memory=place(memory.quantised))
        if config.quantisation == "int8"
        else None
    )
    graph = edge.HnswIndexConfig(
        m=config.m,
        ef_construct=config.ef_construct,
        # In KB. Of passages with a value in common no graph is made where a search would compare them one by one.
        full_scan_threshold=max(1, config.exact_below * dimensions * 4 // 1024),
        max_indexing_threads=config.threads,
        memory=place(memory.graph),
    )
    return edge.EdgeConfig(
        vectors={MEANING: edge.EdgeVectorParams(dimensions, edge.Distance.Cosine, memory=place(memory.vectors))},
        sparse_vectors={WORDS: edge.EdgeSparseVectorParams(modifier=edge.Modifier.Idf, memory=place(memory.words))},
        hnsw_config=graph,
        quantization_config=quantised,
        optimizers=edge.EdgeOptimizersConfig(
            deleted_threshold=1e-9,  # whatever was removed is removed from the files, too
            vacuum_min_vector_number=1,
            default_segment_number=config.segments,
            indexing_threshold=1,
            max_segment_size=1 << 40,
        ),
        payload_memory=place(memory.passages),
        wal_enabled=False,
    )


def _verify(directory: Path) -> None:
    """Compares with the sizes that were noted. Edge maps its files: one that was cut off would end the process."""
    if not (directory / "edge_config.json").is_file() or not any((directory / "segments").glob("*/segment.json")):
        raise IndexDamaged(f"{directory}: files of Qdrant Edge are missing")
    noted = directory / "files.json"
    if not noted.exists():
        return
    for name, size in json.loads(noted.read_text()).items():
        path = directory / name
        if not path.is_file() or path.stat().st_size < size:
            raise IndexDamaged(f"{path}: is missing or was cut off; it had {size} bytes")


def never_changes(path: Path) -> bool:
    """Whether a file is of a graph that stands, and no change touches it: what was removed is noted in others."""
    segment = next((above for above in path.parents if above.parent.name == "segments"), None)
    made = segment is not None and (segment / f"vector_storage-{MEANING}" / "matrix.dat").exists()
    return made and (path.name in _FIXED or (path.name.startswith("page_") and "payload_index" not in path.parts))


def _files(directory: Path) -> Iterator[Path]:
    return (path for path in directory.rglob("*") if path.is_file())


def _is_cold(path: Path) -> bool:
    """Vectors in full precision, and passages: by default Edge leaves them on the disk."""
    return path.name == "matrix.dat" or "payload_storage" in path.parts or f"vector_storage-{WORDS}" in path.parts


def _only_growing(directory: Path) -> Iterator[Path]:
    return (path for path in _files(directory) if path.suffix != ".json" and "journal" not in path.name)


def _sync_files(directory: Path) -> None:
    for path in _files(directory):
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            continue
        try:
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)
