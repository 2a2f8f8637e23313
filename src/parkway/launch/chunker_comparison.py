"""Which chunker finds the most of what answers questions: all of them, side by side, on judged spans."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from parkway.launch.encoding import Encoding
from parkway.retrieval.chunking.chunker import Chunker, chunker
from parkway.retrieval.chunking.config import ChunkingConfig
from parkway.retrieval.chunking.encoder import Encoder
from parkway.retrieval.chunking.evaluation import Gold, Quality, evaluate, load, load_file
from parkway.retrieval.chunking.hybrid import hybrid
from parkway.retrieval.parsing.config import ParsingConfig
from parkway.retrieval.parsing.file import read_file
from parkway.retrieval.parsing.plain import read_plain
from parkway.retrieval.parsing.sandbox import Sandbox
from parkway.retrieval.query_vectors import Embed


def chunkers(encoder: Encoder, embed: Embed) -> dict[str, Chunker]:
    """Those that can be configured, by name; for an encoder that reads less, shorter ones."""
    reads = encoder.reads
    made: dict[str, Chunker] = {}
    for name, config in (
        ("structure (default)", ChunkingConfig()),
        ("semantic", ChunkingConfig(method="semantic")),
        ("fixed, 128", ChunkingConfig(method="fixed")),
        ("overlapping, 128, 10 %", ChunkingConfig(method="overlapping", max_tokens=128)),
        ("overlapping, 512, 10 %", ChunkingConfig(method="overlapping")),
    ):
        if config.limit <= reads:
            made[name] = chunker(config, encoder, embed)
    return made


def compared(path: Path, model: str, language: str, tell: Callable[[str, Quality], object]) -> dict[str, Quality]:
    """Measures each chunker.

    Args:
        path: A gold file with spans, or a folder as BEIR lays it out.
        model: The encoder.
        tell: Called with each as it is done: it may take minutes.

    Raises:
        ConfigurationError: No judged spans can be read, or a document cannot be parsed.
    """
    gold = judged_spans(path)
    encoding = Encoding(model)
    try:
        results: dict[str, Quality] = {}
        for name, cut in chunkers(encoding.encoder, encoding.embed).items():
            results[name] = evaluate(gold, cut, encoding.encoder, hybrid(encoding.embed, language))
            tell(name, results[name])
        return results
    finally:
        encoding.close()


def judged_spans(path: Path) -> Gold:
    """Raises like `compared`."""
    if path.is_dir():
        return load(path, read_plain)
    sandbox = Sandbox()
    most = ParsingConfig().max_bytes
    try:
        return load_file(path, lambda file: sandbox.parse(read_file(file, most), file.name))
    finally:
        sandbox.close()
