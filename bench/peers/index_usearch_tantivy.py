"""USearch and Tantivy side by side over the passages of a folder: HNSW with vectors in 8 bits, which are scored again
in full, and an index of words that has the texts; both fused by RRF. Permissions hold for words alone.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import tantivy
from index_data import Data, Found, asked, main, memory, since
from usearch.index import Index

DEPTH, LIMIT, K = 100, 10, 60


def schema() -> tantivy.Schema:
    builder = tantivy.SchemaBuilder()
    builder.add_unsigned_field("number", stored=True, indexed=True)
    builder.add_text_field("text", stored=True, tokenizer_name="en_stem", index_option="freq")
    builder.add_text_field("access", tokenizer_name="raw", index_option="basic")
    return builder.build()


def build(data: Data, place: Path) -> Found:
    (place / "words").mkdir()
    words = tantivy.Index(schema(), path=str(place / "words"))
    writer = words.writer(512 << 20)
    for number in range(data.count):
        document = tantivy.Document()
        document.add_unsigned("number", number)
        document.add_text("text", data.text(number))
        document.add_text("access", "*")
        writer.add_document(document)
    writer.commit()
    writer.wait_merging_threads()
    graph = Index(ndim=data.rows.shape[1], metric="cos", dtype="i8", connectivity=16, expansion_add=128)
    for numbers in data.batches(50_000):
        graph.add(np.arange(numbers.start, numbers.stop), np.array(data.rows[numbers.start : numbers.stop]))
    graph.save(str(place / "graph"))
    np.save(place / "rows.npy", data.rows[: data.count])
    return {}


def search(data: Data, place: Path) -> Found:
    before = memory()
    started = time.perf_counter()
    graph = Index.restore(str(place / "graph"), view=True)
    graph.expansion_search = 200
    rows = np.load(place / "rows.npy", mmap_mode="r")
    words = tantivy.Index.open(str(place / "words"))
    searcher = words.searcher()
    kind = words.schema
    opened = time.perf_counter() - started
    everybody = tantivy.Query.const_score_query(tantivy.Query.term_query(kind, "access", "*"), 0.0)

    def by_words(text: str, limit: int) -> list[tuple[int, str]]:
        wanted = [(tantivy.Occur.Must, everybody), (tantivy.Occur.Must, words.parse_query(text, ["text"]))]
        hits = searcher.search(tantivy.Query.boolean_query(wanted), limit, count=False).hits
        found = [searcher.doc(address) for _, address in hits]
        return [(each["number"][0], each["text"][0]) for each in found]

    def by_meaning(query: np.ndarray) -> list[int]:
        names = np.asarray(graph.search(query, 2 * DEPTH).keys, np.int64)
        return names[np.argsort(-(rows[names] @ query))[:DEPTH]].tolist()

    def text_of(number: int) -> str:
        one = tantivy.Query.term_query(kind, "number", number)
        return searcher.doc(searcher.search(one, 1, count=False).hits[0][1])["text"][0]

    def hybrid(number: int) -> list[str]:
        texts = dict(by_words(data.query_text(number), DEPTH))
        scores: dict[int, float] = {}
        for found in (list(texts), by_meaning(data.queries[number])):
            for rank, name in enumerate(found, 1):
                scores[name] = scores.get(name, 0.0) + 1 / (K + rank)
        best = sorted(scores, key=lambda name: -scores[name])[:LIMIT]
        return [texts[name] if name in texts else text_of(name) for name in best]

    def nearest(number: int) -> list[int]:
        return by_meaning(data.queries[number])[:10]

    return {"open_s": opened, **asked(data, hybrid, nearest), **since(before)}


if __name__ == "__main__":
    main("usearch_tantivy", build, search)
