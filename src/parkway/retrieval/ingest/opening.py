"""Which source a configuration means."""

from __future__ import annotations

from pathlib import Path

from parkway.retrieval.config import SourceConfig
from parkway.retrieval.ingest.folder import Folder
from parkway.retrieval.ingest.pattern import Patterns
from parkway.retrieval.ingest.source import Source


def open_source(config: SourceConfig, home: Path | None = None) -> Source:
    """A source, of which nothing is read yet.

    Args:
        home: Parkway's own, which is passed over.

    Raises:
        ConfigurationError: It needs an environment variable that is not set, or a package that is not installed.
    """
    access = None if config.access is None else tuple(config.access)
    patterns = Patterns(config.include, config.exclude)
    if config.query is not None:
        from parkway.retrieval.ingest.query import Query

        return Query(config.query, access, config.metadata)
    if config.bucket is not None:
        from parkway.retrieval.ingest.bucket import Bucket

        return Bucket(config.bucket, config.name, patterns, access, config.metadata)
    root = Path(str(config.path)).expanduser().absolute()
    return Folder(root, config.name, patterns, access, config.metadata, home)
