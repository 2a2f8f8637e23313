"""Collections as people configure them: where their documents come from, how they are cut, who may see them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
from pydantic import AfterValidator, Field, StringConstraints, field_validator, model_validator

from parkway.core.configuration import Section
from parkway.core.errors import ConfigurationError
from parkway.core.knowledge import checked_name
from parkway.retrieval.chunking.config import ChunkingConfig
from parkway.retrieval.document import EVERYONE
from parkway.retrieval.index.config import IndexConfig
from parkway.retrieval.parsing.config import ParsingConfig
from parkway.retrieval.ranking.config import RankingConfig

UPLOADS = "uploads"
"""The source of what clients sent; every collection has it."""

CollectionName = Annotated[str, AfterValidator(checked_name)]
VariableName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Principal = Annotated[str, StringConstraints(pattern=r"^(\*|(key|user|team):[^\s].{0,254})$")]
Pattern = Annotated[str, StringConstraints(min_length=1, max_length=1024)]
MetadataValue = bool | int | float | str | list[str]
Metadata = Annotated[dict[Annotated[str, Field(min_length=1, max_length=128)], MetadataValue], Field(max_length=64)]


class BucketConfig(Section):
    """An object store that speaks S3.

    Attributes:
        endpoint: Its address, without the bucket; by default Amazon's in `region`.
        prefix: Only objects whose keys begin with it.
        access_key_env, secret_key_env, token_env: The environment variables that hold the credentials; without any,
            requests are not signed.
    """

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{1,254}$")]
    endpoint: Annotated[str, StringConstraints(pattern=r"^https?://[^/@\s?#]+/?$")] | None = None
    region: Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{1,64}$")] = "us-east-1"
    prefix: Annotated[str, Field(max_length=1024)] = ""
    access_key_env: VariableName | None = None
    secret_key_env: VariableName | None = None
    token_env: VariableName | None = None
    timeout_s: Annotated[float, Field(gt=0, le=600)] = 30.0

    @model_validator(mode="after")
    def _whole(self) -> BucketConfig:
        if (self.access_key_env is None) != (self.secret_key_env is None):
            raise ValueError("`access_key_env` and `secret_key_env` belong together")
        return self


class QueryConfig(Section):
    """Rows of a database: one document each.

    Attributes:
        name: A part of each document's identity; the query may change, the name should not.
        sql: A query with the columns `id` and `text`; `title`, `uri`, `media_type` and `access` (a principal, or
            several with commas) if there are any; all others become metadata. It runs in a transaction that only reads.
        url_env: The environment variable that holds the database's URL, as SQLAlchemy writes them.
    """

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    sql: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=65_536)]
    url_env: VariableName
    timeout_s: Annotated[float, Field(gt=0, le=3600)] = 300.0

    @field_validator("sql")
    @classmethod
    def _one_query(cls, sql: str) -> str:
        sql = sql.rstrip("; \n")
        if not sql.lower().startswith(("select", "with")):
            raise ValueError("a query begins with SELECT or WITH")
        return sql


class SourceConfig(Section):
    """Where documents come from: exactly one of `path`, `bucket`, `query`.

    Attributes:
        path: A folder with all below it, or a file.
        include, exclude: Of a `path` or a `bucket`: patterns of paths below it; `**` stands for any folders, a pattern
            without `/` for names. What is hidden (`.git`) is left out unless it is included by name.
        access: Who may see them; by default as the collection says.
        metadata: Of each of them.
        watch: Of a `path`: whether changes are noticed at once.
        rescan_s: How often all of it is looked through.
    """

    path: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    bucket: BucketConfig | None = None
    query: QueryConfig | None = None
    include: Annotated[list[Pattern], Field(max_length=256)] = []
    exclude: Annotated[list[Pattern], Field(max_length=256)] = []
    access: Annotated[list[Principal], Field(min_length=1, max_length=1024)] | None = None
    metadata: Metadata = {}
    watch: bool = True
    rescan_s: Annotated[float, Field(ge=1, le=86_400)] = 600.0

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"path": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_place(self) -> SourceConfig:
        if sum(place is not None for place in (self.path, self.bucket, self.query)) != 1:
            raise ValueError("exactly one of `path`, `bucket`, `query` is needed")
        if self.query is not None and (self.include or self.exclude):
            raise ValueError("`include` and `exclude` belong to a `path` or a `bucket`; a `query` has its WHERE")
        return self

    @property
    def name(self) -> str:
        """A part of the identity of each of its documents."""
        if self.bucket is not None:
            return f"s3://{self.bucket.name}/{self.bucket.prefix}"
        return self.query.name if self.query is not None else str(self.path)


class SearchConfig(Section):
    """How a collection is searched.

    Attributes:
        depth: Passages of each list, by words and by meaning; never fewer than the hits that are wanted.
        duplicates: Whether a passage that says the same in the same words as one before it is left out.
        diversity: 0 to 1: how much hits that say the same give way to others, where a search does not say.
        cache_bytes: What the answers to searches may take that are kept until something changes; 0 keeps none.
    """

    depth: Annotated[int, Field(ge=1, le=1000)] = 100
    duplicates: bool = True
    diversity: Annotated[float, Field(ge=0, le=1)] = 0.0
    cache_bytes: Annotated[int, Field(ge=0)] = 16 << 20


class CollectionConfig(Section):
    """A collection: documents that are searched together.

    Attributes:
        model: The encoder; changing it embeds everything anew.
        index: Where the passages lie. Like `model`, it cannot change while the collection is open.
        access: Who may see what says nothing else; by default whoever may search the collection.
        metadata: Of each document that does not say otherwise.
    """

    sources: Annotated[list[SourceConfig], Field(max_length=256)] = []
    model: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:/-]{1,128}$")] = "park-embed"
    chunking: ChunkingConfig = ChunkingConfig()
    parsing: ParsingConfig = ParsingConfig()
    index: IndexConfig = IndexConfig()
    search: SearchConfig = SearchConfig()
    ranking: RankingConfig = RankingConfig()
    access: Annotated[list[Principal], Field(min_length=1, max_length=1024)] = [EVERYONE]
    metadata: Metadata = {}

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        """A bare string is a folder or file, a list several sources."""
        if isinstance(value, str):
            return {"sources": [value]}
        return {"sources": value} if isinstance(value, list) else value

    @model_validator(mode="after")
    def _apart(self) -> CollectionConfig:
        names = [source.name for source in self.sources]
        for name in names:
            if name == UPLOADS:
                raise ValueError(f"a source cannot be called `{UPLOADS}`; documents that clients send are")
            if names.count(name) > 1:
                raise ValueError(f"the source {name!r} is given twice")
        return self

    def anchored(self, folder: Path) -> CollectionConfig:
        """The same with the path of each source absolute: relative to `folder`."""
        sources = [
            source
            if source.path is None
            else source.model_copy(update={"path": os.path.normpath(folder / Path(source.path).expanduser())})
            for source in self.sources
        ]
        return self.model_copy(update={"sources": sources})

    def beside(self, opened: CollectionConfig) -> CollectionConfig:
        """The same with what cannot change while a collection is open as in `opened`, the one that is."""
        return self.model_copy(update={"model": opened.model, "index": opened.index})

    def recipe(self, embedder: str) -> str:
        """Changes when what is indexed of a document would change though the document does not."""
        said = [embedder, self.chunking.fingerprint, self.access, self.metadata, self.parsing.max_pages]
        return hashlib.sha256(msgspec.json.encode(said, order="deterministic")).hexdigest()[:16]

    def check_environment(self, environment: Mapping[str, str] = os.environ) -> None:
        """Sees that every key that names an environment variable names one that is set.

        Raises:
            ConfigurationError: One is not; the message goes on from the collection's key.
        """
        named: list[tuple[str, str | None]] = [("index.url_env", self.index.url_env)]
        named.append(("index.api_key_env", self.index.api_key_env))
        for number, source in enumerate(self.sources):
            place = f"sources.{number}"
            if source.query is not None:
                named.append((f"{place}.query.url_env", source.query.url_env))
            if source.bucket is not None:
                for key in ("access_key_env", "secret_key_env", "token_env"):
                    named.append((f"{place}.bucket.{key}", getattr(source.bucket, key)))
        for key, variable in named:
            if variable is not None and not environment.get(variable):
                raise ConfigurationError(
                    f"{key}: the environment variable {variable} is not set; set it before `parkway up`"
                )
