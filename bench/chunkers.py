"""How much of what answers a question is found within 1,500 tokens, by how documents are cut.

On the judged spans of Smith and Troynikov (Chroma, 2024): 5 documents, 472 questions. The search is BM25 and
`park-embed` side by side, 100 of each, fused by reciprocal rank (k 60), over all documents at once. Beside Parkway's
chunkers stands `semantic-text-splitter` at 128 tokens. Takes some minutes of one core for each chunker;
`--vectors FILE` keeps them.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from semantic_text_splitter import TextSplitter
from tokenizers import Tokenizer

from parkway.engine.builtin import PARK_EMBED, resolve
from parkway.engine.config import EngineConfig
from parkway.engine.directory import ModelDirectory
from parkway.engine.embedder import Embedder
from parkway.launch.chunker_comparison import chunkers, judged_spans
from parkway.retrieval.chunking.chunker import Chunker, chunker
from parkway.retrieval.chunking.config import ChunkingConfig
from parkway.retrieval.chunking.encoder import Encoder
from parkway.retrieval.chunking.evaluation import Quality, evaluate, table
from parkway.retrieval.chunking.hybrid import hybrid
from parkway.retrieval.document import Chunk, Parsed

READS = 256
BATCH = 128


class Vectors:
    """`park-embed`, with what it has made kept in a file. What it does not read of a text is cut off."""

    def __init__(self, kept: str) -> None:
        path = resolve(PARK_EMBED)
        self.tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        self._kept = sqlite3.connect(kept)
        self._kept.execute("CREATE TABLE IF NOT EXISTS v (k TEXT PRIMARY KEY, x BLOB)")

    def encoder(self, reads: int) -> Encoder:
        """The encoder, as if it read so many tokens."""
        return Encoder(lambda texts: [len(e.ids) for e in self.tokenizer.encode_batch_fast(list(texts))], reads)

    def embed(self, texts: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float32]]:
        """[texts, dimensions], rows of length 1."""
        keys = [hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest() for text in texts]
        missing = {key: text for key, text in zip(keys, texts, strict=True) if self._vector(key) is None}
        if missing:
            asyncio.run(self._make(sorted(missing.items(), key=lambda item: len(item[1]))))
        return np.stack([np.frombuffer(self._vector(key) or b"", np.float32) for key in keys])

    def _vector(self, key: str) -> bytes | None:
        row = self._kept.execute("SELECT x FROM v WHERE k = ?", (key,)).fetchone()
        return row[0] if row else None

    async def _make(self, texts: list[tuple[str, str]]) -> None:
        embedder = Embedder(ModelDirectory(resolve(PARK_EMBED)), EngineConfig(request_timeout_s=3600))
        for start in range(0, len(texts), BATCH):
            part = texts[start : start + BATCH]
            ids = [self.tokenizer.encode(text).ids for _, text in part]
            read = [each if len(each) <= READS else [*each[: READS - 1], each[-1]] for each in ids]
            made = torch.stack(await embedder.embed(read)).numpy().astype(np.float32)
            rows = [(key, vector.tobytes()) for (key, _), vector in zip(part, made, strict=True)]
            self._kept.executemany("INSERT OR REPLACE INTO v VALUES (?, ?)", rows)
            self._kept.commit()
        await embedder.close()


def peer(vectors: Vectors) -> Chunker:
    """`semantic-text-splitter` by itself."""
    splitter = TextSplitter.from_huggingface_tokenizer(vectors.tokenizer, 128)
    count = vectors.encoder(READS).count

    def cut(parsed: Parsed) -> list[Chunk]:
        pieces = splitter.chunk_indices(parsed.text)
        counts = count([text for _, text in pieces])
        return [Chunk(at, at + len(text), tokens=c) for (at, text), c in zip(pieces, counts, strict=True)]

    return cut


def main() -> None:
    """Prints the table."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--data", type=Path, required=True, help="the folder with corpus, queries and qrels")
    arguments.add_argument("--vectors", default=":memory:", help="a file that keeps vectors for the next time")
    arguments.add_argument("--only", action="append", help="names that begin so")
    given = arguments.parse_args()
    torch.set_num_threads(1)
    gold, vectors = judged_spans(given.data), Vectors(given.vectors)
    encoder = vectors.encoder(READS)
    made = {"semantic-text-splitter, 128": peer(vectors), **chunkers(encoder, vectors.embed)}
    too_long = ChunkingConfig(method="overlapping")
    made["overlapping, 512, 10 %, half of it unread"] = chunker(too_long, vectors.encoder(too_long.limit))
    results: dict[str, Quality] = {}
    for name, cut in made.items():
        if not given.only or any(name.startswith(start) for start in given.only):
            results[name] = evaluate(gold, cut, encoder, hybrid(vectors.embed))
            print(table({name: results[name]}).splitlines()[-1], flush=True)
    print(f"\n{table(results)}")


if __name__ == "__main__":
    main()
