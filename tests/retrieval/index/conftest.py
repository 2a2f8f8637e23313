"""The stores that pass the same tests, each empty and with small bounds, so that graphs come into play early."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from qdrant_client import QdrantClient

from parkway.retrieval.index.config import IndexConfig
from parkway.retrieval.index.edge import EdgeIndex
from parkway.retrieval.index.index import Index
from parkway.retrieval.index.pgvector import PgvectorIndex
from parkway.retrieval.index.qdrant import QdrantIndex
from tests.retrieval.index.corpus import DIMENSIONS

Open = Callable[..., Index]
"""Opens the store of the test (again); dimensions and language can be given."""

BOUNDS = {"graph_from": 200, "exact_below": 50, "build_threads": 1, "build_niceness": 0, "connections": 8}


class LockedClient(QdrantClient):
    """Qdrant's client with what it has instead of a server, which is for one thread at a time."""

    def __init__(self) -> None:
        super().__init__(":memory:")
        self._turn = threading.Lock()

    def __getattribute__(self, name: str) -> object:
        value = super().__getattribute__(name)
        if name.startswith("_") or not callable(value):
            return value

        def locked(*arguments: object, **named: object) -> object:
            with self._turn:
                return value(*arguments, **named)

        return locked

    def close(self, *_: object, **__: object) -> None:
        """The next that opens the collection finds it as it was."""


@pytest.fixture(params=["edge", "qdrant", "pgvector"])
def open_index(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Opens an index, empty at first: the test runs once on each store."""
    opened: list[Index] = []
    store: str = request.param
    url = request.getfixturevalue("vector_database") if store == "pgvector" else None
    name = f"{request.node.name}'s"  # a collection of its own
    client = LockedClient() if store == "qdrant" else None

    def open_it(dimensions: int = DIMENSIONS, **settings: object) -> Index:
        if store == "edge":
            index: Index = EdgeIndex(tmp_path / "index", IndexConfig(**{**BOUNDS, **settings}), dimensions)  # pyright: ignore
        elif store == "qdrant":
            config = IndexConfig(store="qdrant", url="http://h:1", **{**BOUNDS, **settings})  # pyright: ignore
            assert client is not None
            index = QdrantIndex(client, "c", config, dimensions)
        else:
            config = IndexConfig(store="pgvector", url=url, **{**BOUNDS, **settings})  # pyright: ignore
            index = PgvectorIndex(config.resolved_url(), name, config, dimensions)
        opened.append(index)
        return index

    yield open_it
    for index in opened:
        index.close()


@pytest.fixture
def index(open_index: Open) -> Index:
    return open_index()
