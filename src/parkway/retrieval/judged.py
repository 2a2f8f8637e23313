"""Judged collections as BEIR lays them out: documents, questions, and what answers them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from parkway.retrieval import beir, evaluation
from parkway.retrieval.chunking.chunker import Chunker, chunker
from parkway.retrieval.chunking.config import ChunkingConfig
from parkway.retrieval.chunking.encoder import Encoder
from parkway.retrieval.document import Block, Parsed, Passage, content_hash, passage_id, searched_text
from parkway.retrieval.evaluation import Question
from parkway.retrieval.index.config import IndexConfig
from parkway.retrieval.index.edge import EdgeIndex
from parkway.retrieval.index.index import Index
from parkway.retrieval.query_vectors import Embed

_BATCH = 500


@dataclass(frozen=True, slots=True)
class Judged:
    """A collection.

    Attributes:
        documents: By id.
    """

    documents: dict[str, Parsed]
    questions: list[Question]


def load(folder: Path, split: str) -> Judged:
    """Reads `corpus.jsonl`, `queries.jsonl` and `qrels/SPLIT.tsv`.

    Raises:
        ConfigurationError: A file is missing, or not laid out so.
    """
    documents = {
        name: document((each.title or "").strip(), each.text.strip()) for name, each in beir.documents(folder).items()
    }
    return Judged(documents, evaluation.load(folder, split))


def indexed(collection: Judged, directory: Path, encoder: Encoder, embed: Embed, language: str = "english") -> Index:
    """The collection in an embedded index, as it would be if its documents were added."""
    index = EdgeIndex(directory, IndexConfig.model_validate({"language": language}), embed([""]).shape[1])
    cut = list(passages(collection.documents, chunker(ChunkingConfig(), encoder), "park-embed"))
    for start in range(0, len(cut), _BATCH):
        some = cut[start : start + _BATCH]
        index.upsert(some, embed([passage.searched for passage in some]))
    index.optimise()
    return index


def document(title: str, text: str) -> Parsed:
    """A document whose title is the heading of its text."""
    whole = f"{title}\n\n{text}" if title else text
    blocks = [Block("heading", 0, len(title), 1)] if title else []
    if text:
        blocks.append(Block("paragraph", len(whole) - len(text), len(whole)))
    return Parsed(whole, tuple(blocks), title)


def passages(documents: dict[str, Parsed], cut: Chunker, embedder: str) -> Iterator[Passage]:
    """The documents cut, as they would be indexed.

    Args:
        embedder: The model whose vectors they will have.
    """
    for document_id, parsed in documents.items():
        for ordinal, chunk in enumerate(cut(parsed)):
            part = parsed.text[chunk.start : chunk.end]
            yield Passage(
                passage_id=passage_id(document_id, "1", ordinal), document_id=document_id, version="1",
                ordinal=ordinal, text=part, start=chunk.start, end=chunk.end, title=parsed.title, uri=document_id,
                headings=chunk.headings, content=content_hash(embedder, searched_text(chunk.headings, part)),
            )  # fmt: skip
