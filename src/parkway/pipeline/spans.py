"""What a trace says about a request: OpenTelemetry's conventions for HTTP and for generative AI, filled in at its end.

Source: the semantic conventions, https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/ and
https://opentelemetry.io/docs/specs/semconv/http/http-spans/.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import msgspec

from parkway.core.chat import ChatRequest, Message
from parkway.core.completions import CompletionRequest
from parkway.core.trace import Span
from parkway.feedback.record import MAX_NAME_CHARS, OK, RequestRecord
from parkway.feedback.span import SpanRecord, records_of
from parkway.pipeline.exchange import Exchange, Surface

_OPERATIONS = {
    Surface.COMPLETIONS: "text_completion",
    Surface.EMBEDDINGS: "embeddings",
    Surface.RERANK: "rerank",  # the conventions have no name for it yet
}
_MAX_CONTENT_CHARS = 32_768


def spans_of(exchange: Exchange, entry: RequestRecord, *, content: bool) -> list[SpanRecord]:
    """The spans of a request that has ended, as `entry` has it: the request, its stages, each endpoint asked.

    Args:
        content: Whether they may hold what was asked and answered.
    """
    trace = exchange.trace
    root = trace.root
    began = root.started
    for stage, ended in exchange.marks:
        trace.add(stage, began, ended)
        began = ended
    operation = _OPERATIONS.get(exchange.surface, "chat")
    model = (exchange.request.model if exchange.request is not None else entry.model)[:MAX_NAME_CHARS]
    generation = _generation(exchange, entry, operation, model)
    root.name = f"POST {exchange.surface.route}"
    root.attributes |= {
        "http.request.method": "POST",
        "http.route": exchange.surface.route,
        "url.path": exchange.surface.route,
        "http.response.status_code": entry.status,
        "parkway.outcome": entry.outcome,
        "parkway.attempts": entry.attempts,
        **generation,
    }
    if entry.outcome != OK:
        root.error = entry.outcome[:MAX_NAME_CHARS]
        root.attributes["error.type"] = root.error
    calls = [span for span in trace.spans if span.kind == "client"]
    for resent, span in enumerate(calls):
        where = urlsplit(span.attributes.get("url.full", ""))
        span.attributes["server.address"] = where.hostname or ""
        span.attributes["server.port"] = where.port or (443 if where.scheme == "https" else 80)
        span.attributes["gen_ai.operation.name"] = operation
        span.name = f"{operation} {span.attributes.get('gen_ai.request.model', model)}"
        if resent:
            span.attributes["http.request.resend_count"] = resent
        if span.error is not None:
            span.attributes["error.type"] = span.error
    if exchange.reply is not None and exchange.reply.span is not None:  # the endpoint that answered
        _answered(exchange, entry, exchange.reply.span, generation)
        if content:
            exchange.reply.span.attributes |= _content(exchange)
    return records_of(trace, exchange.request_id, entry.key_id)


def _answered(exchange: Exchange, entry: RequestRecord, span: Span, generation: dict[str, Any]) -> None:
    """What came of the call whose answer the client got, or would have got."""
    span.attributes = {**generation, **span.attributes}
    if exchange.first_token is not None:
        span.events.append(("first_token", exchange.first_token))
    if entry.outcome != OK and span.error is None:
        span.error = span.attributes["error.type"] = entry.outcome[:MAX_NAME_CHARS]


def _generation(exchange: Exchange, entry: RequestRecord, operation: str, model: str) -> dict[str, Any]:
    """`gen_ai.*` of a request and its answer, as far as they are known."""
    known: dict[str, Any] = {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": "parkway",
        "gen_ai.request.model": model,
        "gen_ai.response.id": entry.response_id,
        "gen_ai.response.model": entry.model[:MAX_NAME_CHARS] if entry.outcome == OK else None,
        "gen_ai.usage.input_tokens": entry.prompt_tokens,
        "gen_ai.usage.output_tokens": entry.completion_tokens,
        "gen_ai.conversation.id": entry.conversation_id,
    }
    if entry.first_token_ms is not None:
        known["gen_ai.response.time_to_first_chunk"] = entry.first_token_ms / 1000
    if exchange.transcript.finish_reason is not None:
        known["gen_ai.response.finish_reasons"] = [exchange.transcript.finish_reason[:MAX_NAME_CHARS]]
    request = exchange.request
    if isinstance(request, ChatRequest | CompletionRequest):
        known |= {
            "gen_ai.request.stream": bool(request.stream),
            "gen_ai.request.max_tokens": request.answer_limit
            if isinstance(request, ChatRequest)
            else request.max_tokens,
            "gen_ai.request.temperature": request.temperature,
            "gen_ai.request.top_p": request.top_p,
            "gen_ai.request.seed": request.seed,
            "gen_ai.request.choice.count": request.n if (request.n or 1) > 1 else None,
        }
    return {name: value for name, value in known.items() if value is not None}


def _content(exchange: Exchange) -> dict[str, Any]:
    """What was asked and answered, in the form of `gen_ai.input.messages`; cut to what a span may hold."""
    found: dict[str, Any] = {}
    request = exchange.request
    if isinstance(request, ChatRequest):
        found["gen_ai.input.messages"] = _messages(request.messages)
    if isinstance(request, ChatRequest | CompletionRequest):
        found["gen_ai.output.messages"] = _messages([exchange.transcript.message()])
    return found


def _messages(messages: list[Message]) -> str:
    parts = [
        {"role": message.role, "parts": [{"type": "text", "content": _words(message.content)}]} for message in messages
    ]
    return msgspec.json.encode(parts).decode()[:_MAX_CONTENT_CHARS]


def _words(content: object) -> str:
    return content if isinstance(content, str) else msgspec.json.encode(content).decode()
