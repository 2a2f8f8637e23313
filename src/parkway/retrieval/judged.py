"""Judged collections as BEIR lays them out: documents, questions, and what answers them."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from parkway.core.errors import ConfigurationError
from parkway.retrieval.chunking.chunker import Chunker
from parkway.retrieval.document import Block, Parsed, Passage, content_hash, passage_id, searched_text
from parkway.retrieval.evaluation import Question, Relevant


@dataclass(frozen=True, slots=True)
class Judged:
    """A collection.

    Attributes:
        documents: Title and text of each, by id.
    """

    documents: dict[str, tuple[str, str]]
    questions: list[Question]


def load(folder: Path, split: str) -> Judged:
    """Reads `corpus.jsonl`, `queries.jsonl` and `qrels/SPLIT.tsv`.

    Raises:
        ConfigurationError: A file is missing, or not laid out so.
    """
    try:
        documents = {
            str(row["_id"]): (str(row.get("title", "")).strip(), str(row["text"]).strip())
            for row in _rows(folder / "corpus.jsonl")
        }
        texts = {str(row["_id"]): str(row["text"]) for row in _rows(folder / "queries.jsonl")}
        gold: dict[str, list[str | Relevant]] = {}
        with (folder / "qrels" / f"{split}.tsv").open(encoding="utf-8", newline="") as lines:
            for row in csv.DictReader(lines, delimiter="\t"):
                if (grade := float(row["score"])) > 0:
                    gold.setdefault(row["query-id"], []).append(Relevant(row["corpus-id"], grade=grade))
        return Judged(documents, [Question(texts[query], answers) for query, answers in gold.items()])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigurationError(f"{folder}: no judged collection as BEIR lays it out: {error!r}") from error


def passages(documents: dict[str, tuple[str, str]], cut: Chunker, embedder: str) -> Iterator[Passage]:
    """The documents cut, as they would be indexed: the title is the heading of the text.

    Args:
        embedder: The model whose vectors they will have.
    """
    for document_id, (title, text) in documents.items():
        whole = f"{title}\n\n{text}" if title else text
        begin = len(whole) - len(text)
        blocks = [Block("heading", 0, len(title), 1)] if title else []
        if text:
            blocks.append(Block("paragraph", begin, len(whole)))
        for ordinal, chunk in enumerate(cut(Parsed(whole, tuple(blocks), title))):
            part = whole[chunk.start : chunk.end]
            yield Passage(
                passage_id=passage_id(document_id, "1", ordinal), document_id=document_id, version="1",
                ordinal=ordinal, text=part, start=chunk.start, end=chunk.end, title=title, uri=document_id,
                headings=chunk.headings, content=content_hash(embedder, searched_text(chunk.headings, part)),
            )  # fmt: skip


def _rows(path: Path) -> Iterator[dict[str, object]]:
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            if line.strip():
                yield json.loads(line)
