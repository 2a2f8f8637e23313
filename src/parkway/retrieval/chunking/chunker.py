"""Which chunker a configuration means, for which encoder."""

from __future__ import annotations

from typing import Protocol

from parkway.core.errors import ChunkTooLong, ConfigurationError
from parkway.retrieval.chunking.config import ChunkingConfig
from parkway.retrieval.chunking.encoder import Encoder
from parkway.retrieval.chunking.fixed import Fixed
from parkway.retrieval.chunking.packing import Size
from parkway.retrieval.chunking.semantic import Embed, Semantic
from parkway.retrieval.chunking.structure import Structure
from parkway.retrieval.document import Chunk, Parsed


class Chunker(Protocol):
    """Cuts documents. The same document is always cut in the same way."""

    def __call__(self, parsed: Parsed) -> list[Chunk]:
        """Chunks in order; together they hold everything but white space."""
        ...


def chunker(config: ChunkingConfig, encoder: Encoder, embed: Embed | None = None) -> Chunker:
    """The chunker that is configured.

    Args:
        embed: Vectors of sentences; only `semantic` asks for them.

    Raises:
        ChunkTooLong: Its chunks would be longer than the encoder reads.
    """
    if config.limit > encoder.reads:
        raise ChunkTooLong(
            f"chunks of up to {config.limit} tokens are configured, and the encoder reads {encoder.reads} and ignores"
            f" the rest; set `chunking.max_tokens` to at most {encoder.reads}, or choose another encoder"
        )
    if config.target > config.limit:
        raise ConfigurationError(
            f"`chunking.target_tokens` is {config.target} and `chunking.max_tokens` {config.limit};"
            " the target has to be the smaller one"
        )
    size = Size(config.target, config.limit)
    if config.method == "structure":
        return Structure(encoder, size)
    if config.method == "semantic":
        if embed is None:
            raise ConfigurationError("`chunking.method` is `semantic`, which needs an encoder of sentences")
        return Semantic(encoder, embed, size)
    overlap = int(config.limit * config.overlap) if config.method == "overlapping" else 0
    return Fixed(encoder, config.limit, overlap)
