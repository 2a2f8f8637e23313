"""FAISS over the passages of a folder: HNSW with vectors in 8 bits, scored again in full. No words, no filter."""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
from index_data import Data, Found, asked, main, memory, since


def build(data: Data, place: Path) -> Found:
    graph = faiss.IndexHNSWSQ(data.rows.shape[1], faiss.ScalarQuantizer.QT_8bit, 16, faiss.METRIC_INNER_PRODUCT)
    graph.hnsw.efConstruction = 128
    graph.train(np.array(data.rows[:100_000]))
    for numbers in data.batches(100_000):
        graph.add(np.array(data.rows[numbers.start : numbers.stop]))
    faiss.write_index(graph, str(place / "graph"))
    return {}


def search(data: Data, place: Path) -> Found:
    before = memory()
    graph = faiss.read_index(str(place / "graph"))
    graph.hnsw.efSearch = 200

    def hundred(number: int) -> np.ndarray:
        query = data.queries[number]
        _, names = graph.search(query[None], 200)
        names = names[0][names[0] >= 0]
        return names[np.argsort(-(data.rows[names] @ query))[:100]]

    return {**asked(data, hundred, lambda number: hundred(number)[:10].tolist()), **since(before)}


if __name__ == "__main__":
    main("faiss", build, search)
