"""Where an index lies and how it searches. The defaults serve a laptop and a million passages alike."""

from __future__ import annotations

import os
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from parkway.core.configuration import Section
from parkway.core.errors import ConfigurationError

Store = Literal["edge", "qdrant", "pgvector"]

Place = Literal["disk", "cached", "pinned"]
"""`disk`: read when it is needed, and ahead where memory is free; `cached`: read when the index is opened, and given up
under pressure; `pinned`: in memory."""

Language = Literal[
    "none", "arabic", "danish", "dutch", "english", "finnish", "french", "german", "greek", "hungarian", "italian",
    "norwegian", "portuguese", "romanian", "russian", "spanish", "swedish", "turkish",
]  # fmt: skip

_SCHEMES = {"qdrant": ("http", "https"), "pgvector": ("postgresql", "postgres")}


class MemoryConfig(Section):
    """What of an index lies in memory. Only the embedded store and Qdrant know the difference."""

    vectors: Place = "disk"
    """In full precision: a search reads only those that it scores again."""
    quantised: Place = "cached"
    graph: Place = "cached"
    words: Place = "cached"
    passages: Place = "disk"


class IndexConfig(Section):
    """The index of a collection.

    Attributes:
        store: `edge` is inside the process that owns the index; the others are servers, at `url`.
        url: `http://host:6333` of Qdrant, or `postgresql://user@host/database` with the extension pgvector.
        url_env: The environment variable that holds the URL, so that no password stands in the file.
        api_key_env: The environment variable that holds Qdrant's key.
        language: Whose endings are cut off and whose empty words are left out of the search for words; `none` for many.
            Words in other languages, Chinese, Japanese and Korean among them, are found whatever it is.
    """

    store: Store = "edge"
    url: str | None = None
    url_env: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] | None = None
    api_key_env: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] | None = None
    timeout_s: Annotated[float, Field(gt=0, le=600)] = 30.0
    """The longest that one answer of a server takes."""
    connections: Annotated[int, Field(ge=1, le=256)] = 8
    """To a PostgreSQL, of each process."""
    language: Language = "english"

    m: Annotated[int, Field(ge=4, le=128)] = 16
    """Edges of each passage in the graph (HNSW)."""
    ef_construct: Annotated[int, Field(ge=8, le=2000)] = 128
    """How many candidates each passage is compared with when the graph is made."""
    ef: Annotated[int, Field(ge=8, le=10_000)] = 128
    """The same in a search; never fewer than are asked for."""
    quantisation: Literal["int8", "none"] = "int8"
    """The graph is searched with vectors in 8 bits; the best are scored again with those in full precision."""
    oversampling: Annotated[float, Field(ge=1, le=10)] = 2.0
    """So many times as many as are asked for are scored again."""
    graph_from: Annotated[int, Field(ge=0, le=10_000_000)] = 10_000
    """Passages; with fewer there is no graph: comparing with all of them is as fast, and exact."""
    exact_below: Annotated[int, Field(ge=0, le=1_000_000)] = 5_000
    """A filter that leaves fewer passages than this is searched one by one: a graph would lose its way between them."""
    segments: Annotated[int, Field(ge=1, le=64)] = 4
    """Graphs that stand side by side before some are made one: fewer search faster, more take new passages cheaper."""
    build_threads: Annotated[int, Field(ge=0, le=256)] = 0
    """That make the graph; 0: as many as there are cores."""
    build_niceness: Annotated[int, Field(ge=0, le=19)] = 10
    """Of the process that makes the graph: searches come first."""
    memory: MemoryConfig = MemoryConfig()

    @model_validator(mode="after")
    def _whole(self) -> IndexConfig:
        given = self.url is not None or self.url_env is not None
        if self.store == "edge" and given:
            raise ValueError("`url` belongs to the stores `qdrant` and `pgvector`; `store` is `edge`")
        if self.store != "edge" and not given:
            raise ValueError(f"`store: {self.store}` needs `url` or `url_env`")
        if self.store != "edge" and self.url is not None and urlsplit(self.url).scheme not in _SCHEMES[self.store]:
            raise ValueError(f"`url` is no {' or '.join(f'{name}://' for name in _SCHEMES[self.store])} URL")
        return self

    @property
    def threads(self) -> int:
        """That make the graph."""
        return self.build_threads or os.cpu_count() or 1

    def resolved_url(self) -> str:
        """The URL of the server.

        Raises:
            ConfigurationError: `url_env` names a variable that is not set.
        """
        url = self.url or os.environ.get(self.url_env or "", "")
        if not url:
            raise ConfigurationError(f"index.url_env: the environment variable {self.url_env} is not set")
        return url
