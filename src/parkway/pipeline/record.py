"""What happened, written down once, whatever happened."""

from __future__ import annotations

import time

from parkway.core.errors import EndpointFailed
from parkway.feedback.record import CANCELLED, OK, RequestRecord, SearchRecord
from parkway.pipeline.decision import decide
from parkway.pipeline.exchange import Exchange
from parkway.pipeline.parts import Parts
from parkway.pipeline.spans import spans_of

CLIENT_CLOSED_REQUEST = 499  # nginx's status for a client that left; only ever in the log


def record(exchange: Exchange, parts: Parts) -> None:
    """Appends the request to the queues of log, audit and traces, and counts it. Never blocks, never raises."""
    now = time.monotonic()
    caller, reply, usage = exchange.caller, exchange.reply, exchange.transcript.usage
    status, outcome = _how_it_ended(exchange)
    entry = RequestRecord(
        request_id=exchange.request_id,
        response_id=_response_id(exchange),
        key_id=caller.key_id if caller else "",
        surface=exchange.surface.value,
        model=_model(exchange),
        endpoint_id=reply.endpoint.endpoint_id if reply else None,
        stream=exchange.stream,
        status=status,
        outcome=outcome,
        prompt_tokens=usage.prompt_tokens if usage else None,
        completion_tokens=usage.completion_tokens if usage else None,
        first_token_ms=(exchange.first_token - exchange.started) * 1000 if exchange.first_token else None,
        total_ms=(now - exchange.started) * 1000,
        attempts=_attempts(exchange),
        conversation_id=exchange.conversation_id,
        queue_ms=exchange.turn.waited_s * 1000 if exchange.turn else None,
        started_ms=exchange.started_ms,
        user=caller.user if caller else None,
        team=caller.team if caller else None,
        agent=exchange.agent,
        task=exchange.task,
        cost_usd=None if exchange.cost_micro_usd is None else exchange.cost_micro_usd / 1_000_000,
        trace_id=exchange.trace.trace_id,
        cache=exchange.cache,
        search=_search(exchange, parts),
    )
    parts.metrics.observe(entry)
    if exchange.grounding is not None and exchange.grounding.told is not None:
        parts.metrics.grounded(exchange.grounding.told)
    decide(exchange, parts.audit)
    if caller is not None:  # strangers are counted; a line in the store for each would let them fill the disk
        parts.log.append(entry)
        exchange.trace.root.ended = now
        if parts.traces.keeps(exchange.trace, failed=exchange.error is not None, took_s=now - exchange.started):
            parts.traces.keep(spans_of(exchange, entry, content=parts.traces.content))


def _search(exchange: Exchange, parts: Parts) -> str | None:
    """What was found in documents, where any were searched to the end."""
    if exchange.grounding is None or (looked := exchange.grounding.looked) is None:
        return None
    outcome = OK if looked.error is None else looked.error.code
    parts.metrics.searched(exchange.surface.value, outcome, looked.found)
    return None if looked.error is not None else SearchRecord.of(looked.collections, looked.found).text()


def _response_id(exchange: Exchange) -> str | None:
    """The id that the client has seen, which is the endpoint's own but in a dialect."""
    told = exchange.transcript.response_id
    return exchange.dialect.id if told is not None and exchange.dialect is not None else told


def _model(exchange: Exchange) -> str:
    """The model that answered, which may be a fallback; where none did, the one that was asked for."""
    if exchange.reply is not None and exchange.error is None:
        return exchange.reply.endpoint.model
    return exchange.request.model if exchange.request else ""


def _attempts(exchange: Exchange) -> int:
    if exchange.reply is not None:
        return exchange.earlier_attempts + exchange.reply.attempts
    last = exchange.error.attempts if isinstance(exchange.error, EndpointFailed) else 0
    return exchange.earlier_attempts + last


def _how_it_ended(exchange: Exchange) -> tuple[int, str]:
    """Status and outcome. A stream that broke keeps the 200 that its client has seen."""
    if exchange.client.left:
        return CLIENT_CLOSED_REQUEST, CANCELLED
    if exchange.error is None:
        return 200, OK
    status = exchange.error.status if exchange.dialect is None else exchange.dialect.status(exchange.error.status)
    return 200 if exchange.client.started else status, exchange.error.code
