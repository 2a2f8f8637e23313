"""The configuration of an index: what fits together, and what is opened by it."""

from __future__ import annotations

from pathlib import Path

import pytest

from parkway.core.configuration import parse
from parkway.core.errors import ConfigurationError
from parkway.retrieval.index.config import IndexConfig
from parkway.retrieval.index.edge import EdgeIndex
from parkway.retrieval.index.opening import open_index


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("store: qdrant", "needs `url`"),
        ("url: http://h:6333", "`store` is `edge`"),
        ("{store: qdrant, url: 'postgresql://h/d'}", "no http:// or https:// URL"),
        ("{store: pgvector, url: 'http://h'}", "no postgresql:// or postgres:// URL"),
        ("language: klingon", "language"),
        ("m: 1", "m"),
        ("memory: {graph: moon}", "memory.graph"),
    ],
)
def test_what_does_not_fit_is_told(text: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        parse(text, IndexConfig, source="parkway.yaml")


def test_a_url_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    config = IndexConfig(store="pgvector", url_env="KNOWLEDGE_URL")
    with pytest.raises(ConfigurationError, match="KNOWLEDGE_URL is not set"):
        config.resolved_url()
    monkeypatch.setenv("KNOWLEDGE_URL", "postgresql://h/d")
    assert config.resolved_url() == "postgresql://h/d"


def test_by_default_it_is_a_directory(tmp_path: Path) -> None:
    index = open_index(IndexConfig(), directory=tmp_path / "a" / "b", collection="c", dimensions=3)
    assert isinstance(index, EdgeIndex)
    assert (tmp_path / "a" / "b" / "index.json").exists()
    index.close()


def test_a_key_that_is_not_there_is_told() -> None:
    config = IndexConfig(store="qdrant", url="http://127.0.0.1:1", api_key_env="NO_SUCH_KEY")
    with pytest.raises(ConfigurationError, match="NO_SUCH_KEY is not set"):
        open_index(config, directory=Path(), collection="c", dimensions=3)
