"""What happened, written down once, whatever happened."""

from __future__ import annotations

import time

from parkway.core.chat import ChatRequest
from parkway.feedback.log import RequestRecord
from parkway.pipeline.exchange import Exchange
from parkway.pipeline.parts import Parts

CLIENT_CLOSED_REQUEST = 499  # nginx's status for a client that left; only ever in the log


def record(exchange: Exchange, parts: Parts) -> None:
    """Appends the request to the log's queue and counts it. Never blocks, never raises."""
    now = time.monotonic()
    request, reply, usage = exchange.request, exchange.reply, exchange.transcript.usage
    error = exchange.error
    entry = RequestRecord(
        request_id=exchange.request_id,
        response_id=exchange.transcript.response_id,
        key_id=exchange.caller.key_id if exchange.caller else None,
        surface=exchange.surface.value,
        model=request.model if request else None,
        endpoint_id=reply.endpoint.endpoint_id if reply else None,
        stream=exchange.stream,
        status=CLIENT_CLOSED_REQUEST if exchange.client_left else error.status if error else 200,
        outcome="client_left" if exchange.client_left else error.code if error else "ok",
        prompt_tokens=usage.prompt_tokens if usage else None,
        completion_tokens=usage.completion_tokens if usage else None,
        first_token_ms=(exchange.first_token - exchange.started) * 1000 if exchange.first_token else None,
        total_ms=(now - exchange.started) * 1000,
        attempts=reply.attempts if reply else 0,
        conversation_id=exchange.conversation_id if isinstance(request, ChatRequest) else None,
        started_ms=exchange.started_ms,
    )
    parts.log.append(entry)
    parts.metrics.observe(entry)
