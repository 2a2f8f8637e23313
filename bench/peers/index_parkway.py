"""Parkway's embedded index over the passages of a folder."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from pathlib import Path

import numpy as np

from bench.peers.index_data import Data, disk_mb, measure, memory_mb, recall, say
from parkway.core.tasks import start_thread
from parkway.retrieval.document import Passage, passage_id
from parkway.retrieval.index.config import IndexConfig
from parkway.retrieval.index.edge import EdgeIndex
from parkway.retrieval.index.index import Filter, Query

ANYBODY = Filter(frozenset({"user:ann"}))
BATCH = 500


def passages(data: Data, numbers: range, version: str) -> list[Passage]:
    """Ten make a document."""
    return [
        Passage(
            passage_id=passage_id(f"d{number // 10}", version, number % 10),
            document_id=f"d{number // 10}",
            version=version,
            ordinal=number,
            text=data.texts[number],
            start=0,
            end=len(data.texts[number]),
            content=f"{number:032x}",
            metadata={"part": number % 100},
        )
        for number in numbers
    ]


def main() -> None:
    folder = Path(sys.argv[1])
    data = Data(folder)
    place = folder / "parkway"
    shutil.rmtree(place, ignore_errors=True)
    index = EdgeIndex(place, IndexConfig(), data.rows.shape[1])
    started = time.perf_counter()
    for numbers in data.batches(BATCH):
        index.upsert(passages(data, numbers, "1"), data.rows[numbers.start : numbers.stop])
    found: dict[str, float] = {"write_s": time.perf_counter() - started}
    started = time.perf_counter()
    index.optimise()
    found["optimise_s"] = time.perf_counter() - started
    found["build_s"] = found["write_s"] + found["optimise_s"]
    started = time.perf_counter()
    index.close()
    index = EdgeIndex(place, IndexConfig(), data.rows.shape[1])
    found["reopen_s"] = time.perf_counter() - started
    index._generation.warm()  # as if it had been open for a while

    def hybrid(number: int) -> object:
        return index.search(Query(data.query_texts[number], data.queries[number], ANYBODY))

    def nearest(number: int) -> list[int]:
        hits = index.search(Query("", data.queries[number], ANYBODY, vector_depth=10))
        return [hit.passage.ordinal for hit in hits]

    def rare(number: int) -> object:
        wanted = Filter(frozenset({"user:ann"}), {"part": number % 100})
        return index.search(Query(data.query_texts[number], data.queries[number], wanted))

    before = memory_mb()
    found |= measure(data, hybrid)
    found["recall"] = recall(data, nearest)
    found |= {f"filter_1_percent_{key}": value for key, value in measure(data, rare).items()}
    found["memory_mb"] = memory_mb()
    found["memory_before_mb"] = before
    found["disk_mb"] = disk_mb(place)
    found |= {f"while_writing_{key}": value for key, value in beside_writer(data, index, hybrid).items()}
    found |= {f"while_optimising_{key}": value for key, value in beside_optimiser(data, index, hybrid).items()}
    found["indexed"] = index.size().indexed
    index.close()
    say(found)


def beside_writer(data: Data, index: EdgeIndex, hybrid) -> dict[str, float]:
    """Searches while a thread writes documents anew as fast as it can."""
    done = threading.Event()
    written = [0]

    def write() -> None:
        for numbers in data.batches(BATCH):
            if done.is_set():
                return
            index.upsert(passages(data, numbers, "1"), data.rows[numbers.start : numbers.stop])
            written[0] += len(numbers)

    started = time.perf_counter()
    writer = start_thread(write, name="bench/writer")
    found = measure(data, hybrid)
    done.set()
    taken = time.perf_counter() - started
    writer.join()
    return {**found, "passages_per_s": written[0] / taken, "written": written[0]}


def beside_optimiser(data: Data, index: EdgeIndex, hybrid) -> dict[str, float]:
    """Searches while the next generation is made and takes over."""
    taken: list[float] = []
    optimiser = start_thread(index.optimise, name="bench/optimiser")
    started = time.perf_counter()
    number = 0
    while optimiser.is_alive():
        begun = time.perf_counter()
        hybrid(number % len(data.queries))
        taken.append((time.perf_counter() - begun) * 1000)
        number += 1
    return {
        "p50_ms": float(np.percentile(taken, 50)),
        "p95_ms": float(np.percentile(taken, 95)),
        "longest_ms": max(taken),
        "s": time.perf_counter() - started,
    }


if __name__ == "__main__":
    main()
