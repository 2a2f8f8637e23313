"""`/v1/embeddings`: request and answer in OpenAI's form."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from parkway.core.prompts import Prompts
from parkway.core.usage import Usage


class EmbeddingRequest(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Texts to embed: one string, several, the token ids of one text, or of several."""

    model: str
    input: Prompts
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Meta(ge=1)] | None = None
    user: str | None = None


class Embedding(msgspec.Struct, kw_only=True):
    """One vector; with `encoding_format: base64`, little-endian float32 bytes in base64."""

    index: int
    embedding: list[float] | str
    object: Literal["embedding"] = "embedding"


class EmbeddingList(msgspec.Struct, kw_only=True):
    data: list[Embedding]
    model: str
    usage: Usage
    object: Literal["list"] = "list"
