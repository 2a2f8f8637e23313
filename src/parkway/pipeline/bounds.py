"""Limits on the size of one request and of its answer."""

from pydantic import PositiveInt

from parkway.core.configuration import Section


class Bounds(Section):
    """What one request may hold. Everything has a limit; these are the ones that people change."""

    max_body_bytes: PositiveInt = 4 * 1024 * 1024
    max_messages: PositiveInt = 2048
    max_choices: PositiveInt = 8
    """The most that `n` may ask for."""
    max_stop_strings: PositiveInt = 16
    max_inputs: PositiveInt = 2048
    """The most texts in one embeddings request, as at OpenAI."""
    max_documents: PositiveInt = 1000
    """The most documents in one rerank request."""
    max_collections: PositiveInt = 8
    """The most collections that `knowledge` may name."""
    max_document_bytes: PositiveInt = 100 * 1024 * 1024
    """Of one that is sent to a collection."""
    max_answer_bytes: PositiveInt = 64 * 1024 * 1024
