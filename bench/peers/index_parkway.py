"""Parkway's embedded index over the passages of a folder."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bench.peers.index_data import PER_DOCUMENT, Data, Found, asked, main, memory, percentiles, since, times
from parkway.core.tasks import start_thread
from parkway.retrieval.document import Passage, passage_id
from parkway.retrieval.index.config import IndexConfig
from parkway.retrieval.index.edge import EdgeIndex
from parkway.retrieval.index.index import Filter, Query

ANN = frozenset({"user:ann"})
ANYBODY = Filter(ANN)
BATCH = 500

Hybrid = Callable[[int], object]


def passages(data: Data, numbers: range) -> list[Passage]:
    found: list[Passage] = []
    for number in numbers:
        text, document = data.text(number), f"d{number // PER_DOCUMENT}"
        found.append(
            Passage(
                passage_id=passage_id(document, "1", number % PER_DOCUMENT),
                document_id=document,
                version="1",
                ordinal=number,
                text=text,
                start=0,
                end=len(text),
                content=f"{number:032x}",
                metadata={"part": number % 100},
            )
        )
    return found


def put(index: EdgeIndex, data: Data, numbers: range) -> None:
    index.upsert(passages(data, numbers), data.rows[numbers.start : numbers.stop])


def build(data: Data, place: Path) -> Found:
    index = EdgeIndex(place, IndexConfig(), data.rows.shape[1])
    started = time.perf_counter()
    for numbers in data.batches(BATCH):
        put(index, data, numbers)
    written = time.perf_counter() - started
    started = time.perf_counter()
    index.optimise()
    optimised = time.perf_counter() - started
    index.close()
    return {"build_s": written + optimised, "write_s": written, "optimise_s": optimised}


def search(data: Data, place: Path) -> Found:
    before = memory()
    started = time.perf_counter()
    index = EdgeIndex(place, IndexConfig(), data.rows.shape[1])
    found: Found = {"open_s": time.perf_counter() - started}
    index._generation.warm()  # as if it had been open for a while

    def hybrid(number: int) -> object:
        return index.search(Query(data.query_text(number), data.queries[number], ANYBODY))

    def nearest(number: int) -> list[int]:
        hits = index.search(Query("", data.queries[number], ANYBODY))
        hits.sort(key=lambda hit: -(hit.vector_score or 0))
        return [hit.passage.ordinal for hit in hits[:10]]

    def rare(number: int) -> object:
        return index.search(Query(data.query_text(number), data.queries[number], Filter(ANN, {"part": number % 100})))

    found |= {**asked(data, hybrid, nearest), **since(before)}
    found |= {f"filter_1_percent_{key}": value for key, value in times(data, rare).items()}
    found |= {f"while_writing_{key}": value for key, value in beside_writer(data, index, hybrid).items()}
    found |= {f"while_optimising_{key}": value for key, value in beside_optimiser(data, index, hybrid).items()}
    found["indexed"] = index.size().indexed
    index.close()
    return found


def beside_writer(data: Data, index: EdgeIndex, hybrid: Hybrid) -> Found:
    """Searches while a thread writes documents anew as fast as it can."""
    done = threading.Event()
    written = [0]

    def write() -> None:
        for numbers in data.batches(BATCH):
            if done.is_set():
                return
            put(index, data, numbers)
            written[0] += len(numbers)

    started = time.perf_counter()
    writer = start_thread(write, name="bench/writer")
    found = times(data, hybrid)
    taken = time.perf_counter() - started
    done.set()
    writer.join()
    return {**found, "passages_per_s": written[0] / taken, "written": written[0]}


def beside_optimiser(data: Data, index: EdgeIndex, hybrid: Hybrid) -> Found:
    """Searches while the next generation is made and takes over."""
    taken: list[float] = []
    optimiser = start_thread(index.optimise, name="bench/optimiser")
    started = time.perf_counter()
    while optimiser.is_alive():
        begun = time.perf_counter()
        hybrid(len(taken) % len(data.queries))
        taken.append((time.perf_counter() - begun) * 1000)
    return {**percentiles(taken), "longest_ms": float(np.max(taken)), "s": time.perf_counter() - started}


if __name__ == "__main__":
    main("parkway", build, search)
