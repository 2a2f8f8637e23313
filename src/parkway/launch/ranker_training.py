"""Trains the default ranker: `python -m parkway.launch.ranker_training --data FOLDER --out FILE`.

FOLDER has a judged collection as BEIR lays it out, with its training questions in `qrels/train.tsv`. It is cut,
embedded and indexed as documents are, in a temporary directory.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import msgspec

from parkway.core.knowledge import Search
from parkway.launch.encoding import Encoding
from parkway.retrieval import judged
from parkway.retrieval.chunking.chunker import chunker
from parkway.retrieval.chunking.config import ChunkingConfig
from parkway.retrieval.chunking.encoder import Encoder
from parkway.retrieval.index.config import IndexConfig
from parkway.retrieval.index.edge import EdgeIndex
from parkway.retrieval.index.index import Index, Vectors
from parkway.retrieval.judged import Judged
from parkway.retrieval.query_vectors import Embed, QueryVectors
from parkway.retrieval.ranking.candidate import Ranked
from parkway.retrieval.ranking.ranker import Ranker, Weights
from parkway.retrieval.ranking.train import train
from parkway.retrieval.search import Searcher

ANYBODY = frozenset({"user:judge"})
BATCH = 500
KEPT_QUERIES = 4096


def index_of(collection: Judged, directory: Path, encoder: Encoder, embed: Embed, language: str = "english") -> Index:
    """The collection, indexed in `directory`."""
    cut = chunker(ChunkingConfig(), encoder)
    dimensions = embed([""]).shape[1]
    index = EdgeIndex(directory, IndexConfig.model_validate({"language": language}), dimensions)
    passages = list(judged.passages(collection.documents, cut, "park-embed"))
    for start in range(0, len(passages), BATCH):
        some = passages[start : start + BATCH]
        index.upsert(some, embed([passage.searched for passage in some]))
    index.optimise()
    return index


def trained(collection: Judged, index: Index, embed: Embed, language: str = "english") -> Weights:
    """The weights of a ranker for such collections."""
    vectors = QueryVectors(embed, KEPT_QUERIES)
    searcher = Searcher("judged", [index], vectors, Ranker.load(language))

    def look(query: str) -> tuple[Vectors, list[Ranked]]:
        vector = vectors.of(query)
        return vector, searcher.candidates(Search(query=query), vector, ANYBODY)

    return train(collection.questions, look, language)


def main() -> None:
    """Writes the file of numbers."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--data", type=Path, required=True, help="the folder with corpus, queries and qrels")
    arguments.add_argument("--split", default="train", help="the questions: qrels/SPLIT.tsv")
    arguments.add_argument("--about", default="", help="what is said of it in the file: names and licences")
    arguments.add_argument("--out", type=Path, required=True)
    given = arguments.parse_args()
    collection = judged.load(given.data, given.split)
    encoding = Encoding("park-embed")
    with tempfile.TemporaryDirectory() as directory:
        index = index_of(collection, Path(directory) / "index", encoding.encoder, encoding.embed)
        weights = trained(collection, index, encoding.embed)
        index.close()
    encoding.close()
    write(msgspec.structs.replace(weights, about={"trained_on": given.about or str(given.data)}), given.out)


def write(weights: Weights, path: Path) -> None:
    """The file that `Ranker.load` reads."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(weights), indent=2) + b"\n")


if __name__ == "__main__":
    main()
