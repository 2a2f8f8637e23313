"""How well a collection is searched: SciFact, the whole path from the text to the hits.

Documents are cut by the structure chunker, embedded by `park-embed`, kept in the embedded index, and searched as an
owner searches them. A document stands where its first passage stands. The vectors of the first run are kept in
`--vectors FILE`; then it takes two minutes of one core. `--train FILE` trains the ranker instead, on `qrels/train.tsv`.

The test questions (`--split test`) are for the last measurement, never for a choice.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import torch

from bench.chunkers import READS, Vectors
from parkway.core.knowledge import Found, Search
from parkway.launch.ranker_training import ANYBODY, index_of, trained, write
from parkway.retrieval import judged
from parkway.retrieval.evaluation import DEPTH, Ask, Results, evaluate, stages, table
from parkway.retrieval.index.index import Index
from parkway.retrieval.judged import Judged
from parkway.retrieval.query_vectors import QueryVectors
from parkway.retrieval.ranking.ranker import Ranker, Weights
from parkway.retrieval.search import Searcher

HITS = 2 * DEPTH
"""Passages that hold a hundred documents."""

BUDGET_MS = 10_000
"""The machine may be busy with something else: no order shall depend on it."""

ABOUT = {
    "trained_on": "the training claims of SciFact (Wadden et al., 'Fact or Fiction: Verifying Scientific Claims', "
    "EMNLP 2020), cut by the structure chunker, vectors of park-embed",
    "licence": "claims and annotations CC BY 4.0 (AllenAI), abstracts ODC-By 1.0 (S2ORC)",
}


def configurations(index: Index, vectors: QueryVectors) -> dict[str, Ask]:
    """What is compared; the first is what the others are compared with."""

    def with_weights(weights: dict[str, float]) -> Searcher:
        return Searcher("judged", [index], vectors, Ranker(Weights(weights=weights, confidence={}), "english"))

    def ask(searcher: Searcher, *, rerank: bool = True) -> Callable[[str], Found]:
        def asked(query: str) -> Found:
            search = Search(query=query, limit=HITS, rerank=rerank, budget_ms=BUDGET_MS)
            return searcher.search(search, ANYBODY)

        return asked

    default = Searcher("judged", [index], vectors, Ranker.load("english"))
    return {
        "reciprocal rank fusion": ask(default, rerank=False),
        "BM25 alone, of what was found": ask(with_weights({"keyword": 1.0})),
        "cosine alone, of what was found": ask(with_weights({"meaning": 1.0})),
        "sum of standardised scores": ask(with_weights({"keyword": 1.0, "meaning": 1.0})),
        "default ranker": ask(default),
    }


def measure(collection: Judged, index: Index, vectors: QueryVectors) -> dict[str, Results]:
    """Each configuration, on the same questions."""
    for question in collection.questions:
        vectors.of(question.query)
    results: dict[str, Results] = {}
    for name, ask in configurations(index, vectors).items():
        results[name] = evaluate(collection.questions, ask)
        print(table({name: results[name]}).splitlines()[-1], flush=True)
    return results


def main() -> None:
    """Prints the tables."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--data", type=Path, required=True, help="the folder with corpus, queries and qrels")
    arguments.add_argument("--split", default="train")
    arguments.add_argument("--vectors", default=":memory:", help="a file that keeps vectors for the next time")
    arguments.add_argument("--train", type=Path, help="writes a ranker to this file instead")
    given = arguments.parse_args()
    torch.set_num_threads(1)
    collection = judged.load(given.data, "train" if given.train else given.split)
    kept = Vectors(given.vectors)
    with tempfile.TemporaryDirectory() as directory:
        index = index_of(collection, Path(directory) / "index", kept.encoder(READS), kept.embed)
        if given.train:
            write(msgspec.structs.replace(trained(collection, index, kept.embed), about=ABOUT), given.train)
        else:
            results = measure(collection, index, QueryVectors(kept.embed, len(collection.questions)))
            print(f"\n{len(collection.questions)} questions, {index.size().passages:,} passages\n\n{table(results)}")
            print(f"\nThe default ranker by stage (the query's vector is kept):\n\n{stages(results['default ranker'])}")
        index.close()


if __name__ == "__main__":
    main()
