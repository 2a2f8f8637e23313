"""From which confidence on to answer: SciFact's claims with and without their abstracts, and questions foreign to both.

Half of the training claims is asked where their abstracts are, the other half where its own were taken out of the
collection and all the rest is left: near misses, the hardest there are. The questions of `--foreign` are about
something else. The other way round, the foreign documents are asked their own questions and SciFact's claims. Takes
some minutes; `--vectors FILE` keeps what takes the most.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch

from bench.chunkers import READS, Vectors
from bench.retrieval_quality import look
from parkway.aggregate.grounding.config import GroundingConfig
from parkway.launch.chunker_comparison import judged_spans
from parkway.retrieval import judged
from parkway.retrieval.calibration import Calibration, table
from parkway.retrieval.evaluation import Question
from parkway.retrieval.judged import Judged
from parkway.retrieval.query_vectors import QueryVectors
from parkway.retrieval.ranking.ranker import Ranker
from parkway.retrieval.search import Searcher


def halves(questions: Sequence[Question]) -> tuple[list[Question], list[Question]]:
    """By a hash of each."""
    first = [hashlib.sha256(question.query.encode()).digest()[0] < 128 for question in questions]
    return (
        [question for question, one in zip(questions, first, strict=True) if one],
        [question for question, one in zip(questions, first, strict=True) if not one],
    )


def without(collection: Judged, asked: Sequence[Question], kept: Sequence[Question]) -> Judged:
    """The collection without the documents that answer `asked`, but for those that answer `kept`, too."""
    gone, stay = ({each.document for question in some for each in question.gold} for some in (asked, kept))
    documents = {name: each for name, each in collection.documents.items() if name in stay or name not in gone}
    return Judged(documents, collection.questions)


def confidence(collection: Judged, kinds: dict[str, list[str]], vectors: Vectors) -> dict[str, list[float]]:
    """How sure a search is of each question, by kind."""
    with tempfile.TemporaryDirectory() as directory:
        index = judged.indexed(collection, Path(directory) / "index", vectors.encoder(READS), vectors.embed)
        searcher = Searcher("judged", [index], QueryVectors(vectors.embed, 1), Ranker.load("english"))
        found = {kind: [look(searcher, query).confidence for query in asked] for kind, asked in kinds.items()}
        index.close()
    return found


def tell(title: str, answerable: Iterable[float], others: Iterable[float]) -> None:
    """Prints what each threshold does."""
    found = Calibration(np.array(list(answerable)), np.array(list(others)))
    print(f"\n{title}: told apart {found.told_apart:.3f}, best threshold {found.recommended or math.nan:.2f}\n")
    print(table(found, [GroundingConfig().min_confidence]))


def main() -> None:
    """Prints the tables."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--data", type=Path, required=True, help="SciFact: corpus, queries and qrels/train.tsv")
    arguments.add_argument("--foreign", type=Path, required=True, help="chunking-eval: corpus, queries and qrels.tsv")
    arguments.add_argument("--vectors", default=":memory:", help="a file that keeps vectors for the next time")
    given = arguments.parse_args()
    torch.set_num_threads(1)
    vectors = Vectors(given.vectors)
    scifact, other = judged.load(given.data, "train"), judged_spans(given.foreign)
    asked, left = halves(scifact.questions)
    kinds = {
        "its own": [question.query for question in asked],
        "near misses": [question.query for question in left],
        "foreign": [question.text for question in other.questions],
    }
    found = confidence(without(scifact, left, asked), kinds, vectors)
    tell("SciFact, its own claims against near misses", found["its own"], found["near misses"])
    tell("SciFact, its own claims against foreign questions", found["its own"], found["foreign"])
    theirs = {"its own": kinds["foreign"], "foreign": kinds["its own"]}
    there = confidence(Judged(other.documents, []), theirs, vectors)
    tell("The foreign documents, their own questions against SciFact's claims", there["its own"], there["foreign"])
    everything = (found["its own"] + there["its own"], found["near misses"] + found["foreign"] + there["foreign"])
    tell("All of it", *everything)


if __name__ == "__main__":
    main()
