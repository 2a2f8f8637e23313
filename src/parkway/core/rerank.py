"""`/v1/rerank`: request and answer in the form that Cohere, Jina and vLLM share."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from parkway.core.usage import Usage


class RerankDocument(msgspec.Struct, kw_only=True):
    """A document as an object; of its fields only the text is read."""

    text: str


class RerankRequest(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Documents to sort by how well they fit the query."""

    model: str
    query: str
    documents: Annotated[list[str | RerankDocument], Meta(min_length=1)]
    top_n: Annotated[int, Meta(ge=1)] | None = None
    """How many results to send, the best ones; by default all."""
    return_documents: bool | None = None
    """Send the text of each document back with its score."""
    max_tokens_per_doc: Annotated[int, Meta(ge=1)] | None = None
    """Cut longer documents off after so many tokens. Without it, one that is too long for the model is refused."""
    user: str | None = None

    def texts(self) -> list[str]:
        """The text of each document."""
        return [document if isinstance(document, str) else document.text for document in self.documents]


class RerankResult(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One document's score; `index` is its place in the request."""

    index: int
    relevance_score: float
    document: RerankDocument | None = None


class RerankList(msgspec.Struct, kw_only=True):
    """The results, best first; among equal scores in the order of the request."""

    id: str
    model: str
    results: list[RerankResult]
    usage: Usage
