"""A collection with all that ingestion needs, and an encoder whose vectors are hashes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from parkway.core.knowledge import DocumentStatus
from parkway.retrieval.catalogue import Catalogue
from parkway.retrieval.chunking.encoder import Encoder
from parkway.retrieval.collections import Collections
from parkway.retrieval.config import CollectionConfig
from parkway.retrieval.index.config import IndexConfig
from parkway.retrieval.index.edge import EdgeIndex
from parkway.retrieval.index.index import Filter, Query
from parkway.retrieval.ingest.embedding import Embedding
from parkway.retrieval.ingest.ingestion import Ingestion
from parkway.retrieval.listing import Listing
from parkway.store.sql import Database

DIMENSIONS = 16
ANYBODY = Filter(frozenset({"key:a"}))


def vector(text: str) -> np.ndarray:
    """Of length 1, the same for the same text."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
    made = np.random.default_rng(seed).standard_normal(DIMENSIONS).astype(np.float32)
    return made / np.linalg.norm(made)


class Encoding:
    """An encoder that counts words, and remembers how much it was asked for.

    Attributes:
        failing: What the next calls raise, in order; None: nothing.
        poison: A text with this in it cannot be embedded.
    """

    def __init__(self, name: str = "hash") -> None:
        self.name = name
        self.batches: list[int] = []
        self.failing: list[Exception | None] = []
        self.poison = ""

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        if self.failing and (error := self.failing.pop(0)) is not None:
            raise error
        if self.poison and any(self.poison in text for text in texts):
            raise RuntimeError("poisoned")
        self.batches.append(len(texts))
        return np.stack([vector(text) for text in texts])

    @property
    def embedding(self) -> Embedding:
        return Embedding(
            self.name, DIMENSIONS, self.embed, Encoder(lambda texts: [len(t.split()) + 2 for t in texts], 256)
        )


class Stage:
    """A home with one collection, `docs`."""

    def __init__(self, home: Path, url: str = "", folder: Path | None = None, **settings: Any) -> None:
        self.home = home
        home.mkdir(exist_ok=True)
        self.folder = folder or home / "folder"
        self.folder.mkdir(exist_ok=True)
        self.database = Database.open(url or f"sqlite:///{home}/parkway.db")
        self.database.migrate()
        self.catalogue = Catalogue(self.database)
        self.collections = Collections(self.database)
        self.listing = Listing(self.database)
        self.encoding = Encoding()
        self.settings: dict[str, Any] = {"sources": [{"path": str(self.folder), "rescan_s": 3600}]} | settings
        self.index = self.open_index()
        self.ingestion: Ingestion | None = None

    @property
    def config(self) -> CollectionConfig:
        return CollectionConfig.model_validate(self.settings)

    def open_index(self) -> EdgeIndex:
        return EdgeIndex(self.home / "index", IndexConfig(build_threads=1, build_niceness=0), DIMENSIONS)

    def start(self, **more: Any) -> Ingestion:
        """Ingestion, begun (again)."""
        self.stop()
        self.collections.save({"docs": self.config}, "config", 1)
        self.ingestion = Ingestion(
            "docs",
            self.config,
            catalogue=self.catalogue,
            index=self.index,
            embedding=self.encoding.embedding,
            uploads=self.home / "uploads",
            **more,
        )
        self.ingestion.start()
        return self.ingestion

    def stop(self) -> None:
        if self.ingestion is not None:
            self.ingestion.close()
        self.ingestion = None

    def close(self) -> None:
        self.stop()
        self.index.close()
        self.database.close()

    def write(self, name: str, text: str | bytes) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    def settle(self, timeout_s: float = 60.0) -> None:
        """Looks through everything and waits until it is in the index."""
        assert self.ingestion is not None
        self.ingestion.rescan()
        assert self.ingestion.settle(timeout_s), self.states()

    def documents(self) -> list[DocumentStatus]:
        return self.listing.documents("docs", self.config, limit=1000).data

    def states(self) -> dict[str, tuple[str, str]]:
        """Of each document, by the last part of its uri: the state and the reason."""
        return {one.uri.rsplit("/", 1)[-1]: (one.state, one.reason) for one in self.documents()}

    def found(self, words: str, principal: str = "key:a") -> set[str]:
        """The texts that are found by words."""
        wanted = Filter(frozenset({principal}))
        return {one.passage.text for one in self.index.search(Query(words, None, wanted))}

    def content(self) -> dict[str, list[tuple[int, str]]]:
        """All that the index has: by uri the passages with their numbers, as often as they are there."""
        found: dict[str, list[tuple[int, str]]] = {}
        for identifier in self.index.documents():
            for one in self.index.passages(identifier):
                found.setdefault(one.uri, []).append((one.ordinal, one.text))
        return found
