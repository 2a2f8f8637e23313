"""May this caller, how much, and is it a request that we understand."""

from __future__ import annotations

from collections.abc import Sized

from parkway.core.chat import ChatRequest
from parkway.core.embeddings import EmbeddingRequest
from parkway.core.errors import InvalidRequest, ParkwayError, UnsupportedField
from parkway.core.rerank import RerankRequest
from parkway.core.wire import decode
from parkway.pipeline.bounds import Bounds
from parkway.pipeline.exchange import Exchange, Request
from parkway.pipeline.parts import Parts


async def admit(exchange: Exchange, parts: Parts) -> Exchange:
    """Reads the body and checks it. A request that cannot be answered as it is counts like any other.

    Raises:
        RateLimited: The caller was told to wait longer.
        BodyTooLarge, MalformedJSON, InvalidRequest, UnsupportedField: The request cannot be answered as it is.
    """
    parts.limiter.knock(exchange.known_caller)
    try:
        exchange.body = await exchange.client.read(parts.bounds.max_body_bytes)
        exchange.request = request = decode(exchange.body, exchange.surface.request_type)
        check_bounds(request, parts.bounds)
    except ParkwayError:
        await parts.limiter.admit(exchange.known_caller)
        raise
    exchange.mark("admit")
    return exchange


def check_bounds(request: Request, bounds: Bounds) -> None:
    """Refuses what is too much of something, with the number and the limit.

    Raises:
        InvalidRequest: A list is too long, or `n` too large; `param` names the field.
        UnsupportedField: Together with `knowledge`, what an answer from documents cannot be.
    """
    if isinstance(request, EmbeddingRequest):
        _at_most("input", request.input, bounds.max_inputs, "bounds.max_inputs")
        return
    if isinstance(request, RerankRequest):
        _at_most("documents", request.documents, bounds.max_documents, "bounds.max_documents")
        return
    if request.n is not None and request.n > bounds.max_choices:
        raise InvalidRequest(
            f"`n`: {request.n} choices asked for, at most {bounds.max_choices} allowed; set by bounds.max_choices",
            param="n",
        )
    if request.stop is not None and not isinstance(request.stop, str):
        _at_most("stop", request.stop, bounds.max_stop_strings, "bounds.max_stop_strings")
    if request.stream_options is not None and not request.stream:
        raise InvalidRequest(
            "`stream_options` is for streams; send it together with `stream: true`", param="stream_options"
        )
    if isinstance(request, ChatRequest):
        _at_most("messages", request.messages, bounds.max_messages, "bounds.max_messages")
        if request.top_logprobs is not None and not request.logprobs:
            raise InvalidRequest("`top_logprobs` needs `logprobs: true`", param="top_logprobs")
        if request.knowledge:
            _at_most("knowledge", request.knowledge, bounds.max_collections, "bounds.max_collections")
            _check_grounded(request)
        if request.conversation is not None and (request.n or 1) > 1:
            raise InvalidRequest("`n`: a conversation has one answer a turn; leave `n` out", param="n")


def _check_grounded(request: ChatRequest) -> None:
    """Refuses what an answer from documents cannot have: what is dropped or marked has no probabilities."""
    if request.logprobs:
        raise UnsupportedField(
            "`logprobs` together with `knowledge`: sentences are checked as a whole; leave one out", param="logprobs"
        )


def _at_most(field: str, value: Sized, limit: int, setting: str) -> None:
    if not isinstance(value, str) and len(value) > limit:
        raise InvalidRequest(f"`{field}`: {len(value)} entries, at most {limit} allowed; set by {setting}", param=field)
