"""LanceDB over the passages of a folder: HNSW with vectors in 8 bits, its own index of words, both fused by RRF."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path

import lancedb
import pyarrow as pa
from index_data import Data, Found, asked, main, memory, since


def build(data: Data, place: Path) -> Found:
    dimensions = data.rows.shape[1]
    kind = pa.list_(pa.float32(), dimensions)
    schema = pa.schema([("number", pa.int64()), ("vector", kind), ("text", pa.string()), ("access", pa.string())])
    table = lancedb.connect(str(place)).create_table("passages", schema=schema)
    for numbers in data.batches(10_000):
        rows = data.rows[numbers.start : numbers.stop]
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), dimensions)
        texts = pa.array([data.text(number) for number in numbers])
        access = pa.array(["*"] * len(numbers))
        table.add(pa.table([pa.array(numbers), vectors, texts, access], schema=schema))
    table.create_index(
        metric="cosine",
        vector_column_name="vector",
        index_type="IVF_HNSW_SQ",
        m=16,
        ef_construction=128,
        num_partitions=1,
    )
    table.create_fts_index("text")
    table.create_scalar_index("access", index_type="BITMAP")
    table.wait_for_index(["vector_idx", "text_idx", "access_idx"], timeout=timedelta(hours=1))
    table.optimize()
    return {}


def search(data: Data, place: Path) -> Found:
    before = memory()
    started = time.perf_counter()
    table = lancedb.connect(str(place)).open_table("passages")
    opened = time.perf_counter() - started

    def hybrid(number: int) -> object:
        query = table.search(query_type="hybrid").vector(data.queries[number]).text(data.query_text(number))
        return query.where("access = '*'", prefilter=True).ef(128).refine_factor(2).limit(10).to_list()

    def nearest(number: int) -> list[int]:
        query = table.search(data.queries[number]).distance_type("cosine").ef(128).refine_factor(2).limit(10)
        return [row["number"] for row in query.select(["number"]).to_list()]

    return {"open_s": opened, **asked(data, hybrid, nearest), **since(before)}


if __name__ == "__main__":
    main("lancedb", build, search)
