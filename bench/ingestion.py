"""Ingestion: documents of a folder into the index, whether memory stays flat, and how soon a new one is found."""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from bench.index import word
from parkway.core.tasks import start_thread
from parkway.retrieval.catalogue import Catalogue
from parkway.retrieval.chunking.encoder import Encoder
from parkway.retrieval.collections import Collections
from parkway.retrieval.config import CollectionConfig
from parkway.retrieval.document import Passage
from parkway.retrieval.index.config import IndexConfig
from parkway.retrieval.index.edge import EdgeIndex
from parkway.retrieval.index.index import Candidate, Filter, Index, Query, Size
from parkway.retrieval.ingest.embedding import Embedding
from parkway.retrieval.ingest.ingestion import Ingestion
from parkway.retrieval.listing import Listing
from parkway.store.sql import Database
from tests.running import children

WORDS = [word(number) for number in range(50_000)]

ANYBODY = Filter(frozenset({"key:bench"}))


def hashed() -> Embedding:
    """Vectors that cost nothing: what is measured is all the rest."""

    def embed(texts: Sequence[str]) -> np.ndarray:
        seeds = [int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") for text in texts]
        rows = np.stack([np.random.default_rng(seed).standard_normal(384, np.float32) for seed in seeds])
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    return Embedding("hash", 384, embed, Encoder(lambda texts: [len(text.split()) + 2 for text in texts], 256))


def park_embed() -> Embedding:
    """The encoder that comes with the package, on an event loop of its own."""
    from parkway.engine.builtin import resolve
    from parkway.engine.config import EngineConfig
    from parkway.engine.directory import ModelDirectory
    from parkway.engine.embedder import Embedder

    loop = asyncio.new_event_loop()
    start_thread(loop.run_forever, name="bench/encoder")
    path = resolve("park-embed")

    async def load() -> Embedder:
        return Embedder(ModelDirectory(path), EngineConfig(model=str(path), request_timeout_s=3600))

    embedder = asyncio.run_coroutine_threadsafe(load(), loop).result()

    def embed(texts: Sequence[str]) -> np.ndarray:
        made = asyncio.run_coroutine_threadsafe(embedder.embed(embedder.tokenise(list(texts))), loop).result()
        return np.stack([one.numpy() for one in made])

    def count(texts: Sequence[str]) -> list[int]:
        return [len(found.ids) for found in embedder._tokenizer.encode_batch_fast(list(texts))]

    return Embedding("park-embed", embedder.dimensions, embed, Encoder(count, embedder.context))


class Nothing:
    """An index that keeps nothing: what is measured is ingestion alone."""

    def upsert(self, passages: Sequence[Passage], vectors: Any) -> None: ...

    def remove(self, document_id: str, *, but: str | None = None) -> None: ...

    def search(self, query: Query) -> list[Candidate]:  # noqa: ARG002 - the contract names it
        return []

    def vectors(self, contents: Sequence[str]) -> dict[str, Any]:  # noqa: ARG002
        return {}

    def passages(self, document_id: str) -> list[Passage]:  # noqa: ARG002
        return []

    def documents(self) -> dict[str, set[str]]:
        return {}

    def optimise(self) -> bool:
        return False

    def size(self) -> Size:
        return Size(0, 0)

    def close(self) -> None: ...


def write(folder: Path, number: int, random: np.random.Generator) -> None:
    """A document of three to six paragraphs."""
    paragraphs = [
        " ".join(WORDS[word] for word in random.zipf(1.3, 90) % len(WORDS)) for _ in range(int(random.integers(3, 7)))
    ]
    path = folder / f"{number // 1000:03}" / f"{number}.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"# Document {number}\n\n" + "\n\n".join(paragraphs))


def memory_mb(pid: int | str = "self") -> float:
    """That a process holds now, without files that are mapped: those the system takes back when it likes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith("RssAnon")), 0) / 1e3


def helpers_mb() -> float:
    """That the children of this process hold now: those that read documents, and the one that makes graphs."""
    held = 0.0
    for pid in children(os.getpid()):
        with suppress(OSError):  # it may have ended
            held += memory_mb(pid)
    return held


def waited(holds: Callable[[], Any]) -> float:
    """Milliseconds until it holds."""
    began = time.monotonic()
    while not holds():
        threading.Event().wait(0.005)
    return (time.monotonic() - began) * 1000


def main() -> None:
    """Prints a line for each tenth of the documents, then how soon single ones are found."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--documents", type=int, default=100_000)
    arguments.add_argument("--encoder", choices=("hash", "park-embed"), default="hash")
    arguments.add_argument("--index", choices=("edge", "nothing"), default="edge")
    arguments.add_argument("--readers", type=int, default=1)
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="parkway-bench-ingestion-") as temporary:
        home = Path(temporary)
        random = np.random.default_rng(1)
        for number in range(options.documents):
            write(home / "folder", number, random)
        embedding = hashed() if options.encoder == "hash" else park_embed()
        index: Index = Nothing()
        if options.index == "edge":
            index = EdgeIndex(home / "index", IndexConfig(), embedding.dimensions)
        measure(home, options.documents, embedding, index, options.readers)
        index.close()


def measure(home: Path, documents: int, embedding: Embedding, index: Index, readers: int) -> None:
    """Ingests what is in the folder of a home."""
    database = Database.open(f"sqlite:///{home}/parkway.db")
    database.migrate()
    catalogue = Catalogue(database)
    config = CollectionConfig.model_validate([str(home / "folder")])
    Collections(database).save({"bench": config}, "config", 0)
    listing = Listing(database)
    ingestion = Ingestion(
        "bench",
        config,
        catalogue=catalogue,
        index=index,
        embedding=embedding,
        uploads=home / "uploads",
        readers=readers,
    )
    columns = ("documents", "seconds", "passages/s", "memory_mb", "at_most_mb", "children_mb", "no graph")
    print("".join(f"{column:>12}" for column in columns))
    began, shown = time.monotonic(), 0
    before = most = memory_mb()
    beside = 0.0
    ingestion.start()
    while shown < documents:
        threading.Event().wait(0.2)
        [status] = listing.statuses("bench")
        most, beside = max(most, memory_mb()), max(beside, helpers_mb())
        if status.indexed >= min(documents, shown + max(1, documents // 10)):
            shown = status.indexed
            seconds = time.monotonic() - began
            size = index.size()
            print(
                f"{shown:12,}{seconds:12.1f}{status.passages / seconds:12.0f}{memory_mb():12.0f}{most:12.0f}"
                f"{beside:12.0f}{size.passages - size.indexed:12,}",
                flush=True,
            )
            most = beside = 0.0
    print(
        f"\nmemory before {before:.0f} MB; {ingestion.indexing.batches} batches, of "
        f"{ingestion.indexing.embedded / max(1, ingestion.indexing.batches):.0f} passages each"
    )
    began = time.monotonic()
    ingestion.rescan()
    print(f"a scan of all, nothing new: {time.monotonic() - began:.1f} s")
    if not isinstance(index, Nothing):
        print(soon(home, index))
    ingestion.close()
    database.close()


def soon(home: Path, index: Index) -> str:
    """How soon documents are found that come one by one."""
    times: list[float] = []
    for number in range(20):
        path = home / "folder" / f"late{number}.md"
        path.write_text(f"late{'abcdefghijklmnopqrst'[number]}zz comes late")
        words = f"late{'abcdefghijklmnopqrst'[number]}zz"
        times.append(waited(lambda words=words: index.search(Query(words, None, ANYBODY))))
    return f"a new document is found after {np.median(times):.0f} ms (median of 20; longest {max(times):.0f} ms)"


if __name__ == "__main__":
    main()
