"""How well a collection is searched: SciFact, the whole path from the text to the hits.

Documents are cut by the structure chunker, embedded by `park-embed`, kept in the embedded index, and searched as an
owner searches them. A document stands where its first passage stands. The vectors of the first run are kept in
`--vectors FILE`; then it takes two minutes of one core.

`--train FILE` trains the ranker instead, on `qrels/train.tsv`, and `--train-cross-encoder FOLDER` a cross-encoder,
which `--cross-encoder FOLDER` then measures, too.

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
from parkway.engine.builtin import PARK_EMBED
from parkway.launch.cross_encoder_training import trained_cross_encoder
from parkway.launch.ranker_training import Lesson, Trained
from parkway.launch.rankers import Rankers
from parkway.retrieval import judged
from parkway.retrieval.evaluation import DEPTH, Ask, Question, Results, evaluate, stages, table
from parkway.retrieval.index.index import Index
from parkway.retrieval.judged import Judged
from parkway.retrieval.query_vectors import QueryVectors
from parkway.retrieval.ranking.candidate import Ranked
from parkway.retrieval.ranking.config import RankingConfig
from parkway.retrieval.ranking.cross_ranking import CrossRanking
from parkway.retrieval.ranking.ranker import Ranker, Weights
from parkway.retrieval.ranking.train import train
from parkway.retrieval.search import Searcher
from parkway.train.cross_encoder import CrossTraining, Progress

ANYBODY = frozenset({"user:judge"})

HITS = 2 * DEPTH
"""Passages that hold a hundred documents."""

BUDGET_MS = 10_000
"""The machine may be busy with something else: no order shall depend on it."""

ABOUT = {
    "trained_on": "the training claims of SciFact (Wadden et al., 'Fact or Fiction: Verifying Scientific Claims', "
    "EMNLP 2020), cut by the structure chunker, vectors of park-embed",
    "licence": "claims and annotations CC BY 4.0 (AllenAI), abstracts ODC-By 1.0 (S2ORC)",
}


def configurations(index: Index, vectors: QueryVectors, cross: CrossRanking | None) -> dict[str, Ask]:
    """What is compared; the first is what the others are compared with."""

    def with_weights(weights: dict[str, float]) -> Searcher:
        return Searcher("judged", [index], vectors, Ranker(Weights(weights=weights, confidence={}), "english"))

    def ask(searcher: Searcher, *, rerank: bool = True) -> Callable[[str], Found]:
        def asked(query: str) -> Found:
            search = Search(query=query, limit=HITS, rerank=rerank, budget_ms=BUDGET_MS)
            return searcher.search(search, ANYBODY)

        return asked

    default = Searcher("judged", [index], vectors, Ranker.load("english"))
    found = {
        "reciprocal rank fusion": ask(default, rerank=False),
        "BM25 alone, of what was found": ask(with_weights({"keyword": 1.0})),
        "cosine alone, of what was found": ask(with_weights({"meaning": 1.0})),
        "sum of standardised scores": ask(with_weights({"keyword": 1.0, "meaning": 1.0})),
        "default ranker": ask(default),
    }
    if cross is not None:
        own = Searcher("judged", [index], vectors, Ranker.load("english"), cross=cross)
        found["the same, and a cross-encoder"] = ask(own)
    return found


def trained(questions: list[Question], searcher: Searcher) -> Weights:
    """The weights of a ranker that fit them."""
    looks = [(question, list(map(Ranked.of, look(searcher, question.query).hits))) for question in questions]
    return train(looks, "english")


def look(searcher: Searcher, query: str) -> Found:
    """A search as training needs it."""
    return searcher.search(Search(query=query, limit=DEPTH, explain=True, budget_ms=BUDGET_MS), ANYBODY)


def trained_reader(questions: list[Question], searcher: Searcher, training: CrossTraining, folder: Path) -> Trained:
    """Trains a cross-encoder into `folder`, with a fifth of the questions held out."""
    lesson = Lesson.of(questions, lambda query: look(searcher, query), lambda _: None)

    def report(progress: Progress) -> None:
        print(f"{progress.share:4.0%}  {progress.steps} steps, loss {progress.loss:.3f}", flush=True)

    ranker = Ranker.load("english")
    trained = trained_cross_encoder(lesson, ranker, PARK_EMBED, training, RankingConfig(), ABOUT, report)
    trained.keep(folder)
    return trained


def measure(collection: Judged, index: Index, vectors: QueryVectors, cross: CrossRanking | None) -> dict[str, Results]:
    """Each configuration, on the same questions."""
    for question in collection.questions:
        vectors.of(question.query)
    results: dict[str, Results] = {}
    for name, ask in configurations(index, vectors, cross).items():
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
    arguments.add_argument("--train-cross-encoder", type=Path, help="writes a cross-encoder to this folder instead")
    arguments.add_argument("--minutes", type=float, default=15.0, help="for that")
    arguments.add_argument("--threads", type=int, default=1)
    arguments.add_argument("--cross-encoder", type=Path, help="a folder that such a training has written")
    given = arguments.parse_args()
    torch.set_num_threads(given.threads)
    split = "train" if given.train or given.train_cross_encoder else given.split
    collection = judged.load(given.data, split)
    kept = Vectors(given.vectors)
    vectors = QueryVectors(kept.embed, len(collection.questions))
    with tempfile.TemporaryDirectory() as directory:
        index = judged.indexed(collection, Path(directory) / "index", kept.encoder(READS), kept.embed)
        searcher = Searcher("judged", [index], vectors, Ranker.load("english"))
        if given.train:
            weights = msgspec.structs.replace(trained(collection.questions, searcher), about=ABOUT)
            given.train.write_bytes(msgspec.json.format(msgspec.json.encode(weights), indent=2) + b"\n")
        elif given.train_cross_encoder:
            training = CrossTraining(minutes=given.minutes, threads=given.threads)
            made = trained_reader(collection.questions, searcher, training, given.train_cross_encoder)
            print(f"\n{table(made.trial.results)}\n\n{made.remark}")
        else:
            cross = Rankers.of(given.cross_encoder, "english", RankingConfig()).cross if given.cross_encoder else None
            results = measure(collection, index, vectors, cross)
            print(f"\n{len(collection.questions)} questions, {index.size().passages:,} passages\n\n{table(results)}")
            print(f"\nThe default ranker by stage (the query's vector is kept):\n\n{stages(results['default ranker'])}")
        index.close()


if __name__ == "__main__":
    main()
