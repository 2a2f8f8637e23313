"""Which store an index has, by its configuration."""

from __future__ import annotations

from pathlib import Path

from parkway.core.errors import ConfigurationError
from parkway.retrieval.index.config import IndexConfig
from parkway.retrieval.index.index import Index


def open_index(config: IndexConfig, *, directory: Path, collection: str, dimensions: int) -> Index:
    """Opens the index of a collection, or of a partition of it, which is made where there is none.

    Args:
        directory: Where the embedded store lies; one for each index.
        collection: What the index is called in a server; another for each index.

    Raises:
        IndexUnavailable: The server does not answer, or another process has the directory.
        IndexDamaged: What lies there cannot be read.
        ConfigurationError: It was made for an encoder of other dimensions, or another language; or the store needs
            packages that are not installed.
    """
    if config.store == "qdrant":
        try:
            from parkway.retrieval.index.qdrant import QdrantIndex
        except ImportError as error:
            raise _missing(config, "qdrant") from error
        return QdrantIndex.connect(config, collection, dimensions)
    if config.store == "pgvector":
        try:
            from parkway.retrieval.index.pgvector import PgvectorIndex
        except ImportError as error:
            raise _missing(config, "pgvector") from error
        return PgvectorIndex(config.resolved_url(), collection, config, dimensions)
    from parkway.retrieval.index.edge import EdgeIndex

    return EdgeIndex(directory, config, dimensions)


def _missing(config: IndexConfig, extra: str) -> ConfigurationError:
    return ConfigurationError(f"index.store: {config.store} needs more packages: pip install 'parkway[{extra}]'")
