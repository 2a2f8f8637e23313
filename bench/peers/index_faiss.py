"""FAISS over the passages of a folder: HNSW with vectors in 8 bits, scored again in full. No words, no filter."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import faiss
import numpy as np
from index_data import Data, disk_mb, measure, memory_mb, recall, say


def main() -> None:
    folder = Path(sys.argv[1])
    data = Data(folder)
    place = folder / "faiss"
    place.mkdir(exist_ok=True)
    rows = np.array(data.rows[: data.count])
    started = time.perf_counter()
    dimensions = rows.shape[1]
    graph = faiss.IndexHNSWSQ(dimensions, faiss.ScalarQuantizer.QT_8bit, 16, faiss.METRIC_INNER_PRODUCT)
    graph.hnsw.efConstruction = 128
    graph.train(rows[:100_000])
    graph.add(rows)
    graph.hnsw.efSearch = 200
    found = {"build_s": time.perf_counter() - started}
    faiss.write_index(graph, str(place / "graph"))
    np.save(place / "rows.npy", rows)

    def search(number: int, depth: int = 100) -> np.ndarray:
        query = data.queries[number]
        _, names = graph.search(query[None], depth * 2)
        names = names[0][names[0] >= 0]
        return names[np.argsort(-(rows[names] @ query))[:depth]]

    found |= measure(data, search)
    found["recall"] = recall(data, lambda number: search(number, 100)[:10].tolist())
    found["memory_mb"] = memory_mb()
    found["disk_mb"] = disk_mb(place)
    say(found)


if __name__ == "__main__":
    main()
