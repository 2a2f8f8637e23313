"""Was it answered before, or is it being answered now."""

from __future__ import annotations

import asyncio
import copy
import logging
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import msgspec

from parkway.aggregate.response_cache.cache import ResponseCache, read_whole
from parkway.aggregate.response_cache.question import KeptAnswer, Question, owner_of
from parkway.aggregate.response_cache.retelling import events, whole
from parkway.aggregate.transcript import Transcript
from parkway.core.deadline import Deadline
from parkway.core.errors import (
    BudgetExceeded,
    DeadlineExceeded,
    Draining,
    InternalError,
    InvalidRequest,
    ParkwayError,
    StreamInterrupted,
)
from parkway.core.wire import decode, encode
from parkway.pipeline.exchange import Exchange
from parkway.pipeline.flight import Flight, Form
from parkway.pipeline.inference import infer, send_events
from parkway.pipeline.parts import Parts
from parkway.pipeline.queue import leave, queue
from parkway.pipeline.routing import models_for, outgoing_body, route, wants_usage

log = logging.getLogger(__name__)

_LOOP_BYTES = 32_768
"""Longer streams are put together in a thread; this much takes about a millisecond."""


async def recall(exchange: Exchange, parts: Parts) -> bool:
    """Answers from the cache, or together with whoever asks the same at this moment. False: somebody has to be asked.

    After True, `exchange` is as it is after `infer`; a request that no endpoint was asked for says so in `cache`.

    Raises:
        ParkwayError: As `route` and `infer` do, of the request that is shared.
    """
    cache = parts.response_cache
    if cache is None:
        return False
    question = None if exchange.caching == "off" else _question(exchange, cache, parts)
    if question is None:
        _tell(exchange, parts, "bypass")
        return False
    fresh = exchange.caching == "refresh"
    if not fresh and (answer := await cache.find(question)) is not None:
        _give(exchange, parts, answer, "exact")
        cache.trace(exchange.request_id, question.key)
        return True
    form = _form(exchange, question, parts)
    flight = None if fresh else parts.flights.find(form)
    vector = await cache.vector(question) if flight is None else None
    alike = None if vector is None or fresh else await cache.find_alike(question, vector)
    if alike is not None:
        key, answer = alike
        _give(exchange, parts, answer, "semantic")
        cache.trace(exchange.request_id, key)
        return True
    await _fly(exchange, parts, question, form, vector, fresh=fresh)
    cache.trace(exchange.request_id, question.key)
    return True


def _form(exchange: Exchange, question: Question, parts: Parts) -> Form:
    """What must be equal for two requests to share the bytes of one answer."""
    return (
        question.key,
        exchange.stream,
        wants_usage(exchange),
        exchange.conversation_id is not None,
        exchange.known_caller.tier,  # which may cut answers short
        tuple(models_for(exchange, parts)),  # a fallback that one may use may be denied to another
    )


def _question(exchange: Exchange, cache: ResponseCache, parts: Parts) -> Question | None:
    """What the request asks, history included; None where its answer is not to be given again."""
    if len(exchange.body) > cache.config.max_request_bytes or not cache.takes(exchange.known_request):
        return None
    caller = exchange.known_caller
    owner = owner_of(cache.config.scope, key_id=caller.key_id, kind=caller.kind, user=caller.user, team=caller.team)
    try:
        if owner[0] != "key":
            # Of a field that stands twice the endpoint may read the one and the key hold the other. Then somebody
            # could have others get the answer to a question of his own.
            exchange.body = encode(decode(exchange.body, dict[str, Any]))
        body = outgoing_body(exchange)
        if len(body) > cache.config.max_request_bytes:
            return None
        fields = decode(body, dict[str, Any])
        request = exchange.known_request
        filtered = parts.guardrails.fingerprint(request.model, caller.team) if parts.guardrails.active else ""
        if exchange.grounding is not None:
            filtered = f"{filtered} {exchange.grounding.fingerprint}"
        return cache.question(request, fields, owner, exchange.surface.path, filtered)
    except (InvalidRequest, RecursionError):
        return None  # in a field that nobody here reads there is something that only an endpoint can judge


def _give(exchange: Exchange, parts: Parts, answer: KeptAnswer, how: str) -> None:
    """The answer as the client would have got it, had it been made now."""
    exchange.cache, exchange.answered_by = how, answer.model
    _tell(exchange, parts, "hit" if how == "exact" else how)
    exchange.answer_headers.append((b"age", str(max(0, int(time.time() - answer.stored_s))).encode()))
    exchange.transcript.body(answer.body)
    exchange.transcript.usage = None  # it cost nothing
    if exchange.stream:
        exchange.closing = events(answer.body, usage=wants_usage(exchange))
        exchange.first_token = time.monotonic()
    else:
        exchange.closing = answer.body


async def _fly(
    exchange: Exchange, parts: Parts, question: Question, form: Form, vector: Sequence[float] | None, *, fresh: bool
) -> None:
    """Reads the answer that is on its way to somebody who asks the same, or asks."""
    flight = None if fresh else parts.flights.find(form)
    asks = flight is None
    if flight is None:
        work = partial(_ask, parts=parts, question=question, vector=vector)
        flight = parts.flights.begin(form, exchange, work, shared=not fresh)
        _tell(exchange, parts, "bypass" if fresh else "miss")
    else:
        exchange.cache = "shared"
        _tell(exchange, parts, "shared")
    theirs = flight.exchange
    reader = flight.join()
    try:
        while data := await flight.next(reader):
            if exchange.first_token is None and theirs.transcript.first_token:
                exchange.first_token = time.monotonic()
            _follow_headers(exchange, theirs)
            await send_events(exchange, data)
        _follow_headers(exchange, theirs)
        exchange.closing, exchange.error, exchange.history = theirs.closing, theirs.error, theirs.history
    except BudgetExceeded as error:
        if asks:
            raise
        raise StreamInterrupted("the budget of whoever had asked for this shared answer is spent; try again") from error
    finally:
        flight.leave(reader)
        exchange.asked = asks and theirs.asked
        exchange.transcript = theirs.transcript if asks else _without_usage(theirs.transcript)
        if asks and flight.over:
            exchange.reply, exchange.turn = theirs.reply, theirs.turn
            exchange.call, exchange.earlier_attempts = theirs.call, theirs.earlier_attempts


def _follow_headers(exchange: Exchange, theirs: Exchange) -> None:
    """Takes over, once, what the stages that asked have to say beside the answer."""
    if exchange.answered_by is None:
        exchange.answered_by = theirs.known_reply.endpoint.model
        exchange.answer_headers += theirs.answer_headers


def _without_usage(transcript: Transcript) -> Transcript:
    """What was read, for one of those whom it cost nothing."""
    mine = copy.copy(transcript)
    mine.usage = None
    return mine


async def _ask(flight: Flight, parts: Parts, question: Question, vector: Sequence[float] | None) -> None:
    """The whole work of a flight: asks an endpoint, and keeps the answer if it is one to be given again."""
    exchange = flight.exchange
    try:
        with Deadline(exchange.deadline):
            await queue(exchange, parts)
            await route(exchange, parts)
            await infer(exchange, parts)
    except ParkwayError as error:
        exchange.error = error
        flight.land(error)
    except TimeoutError:
        exchange.error = DeadlineExceeded("the request took longer than its time-out, which is gateway.timeout_s")
        flight.land(exchange.error)
    except asyncio.CancelledError:
        flight.left = True
        flight.land(Draining("the gateway stopped before the answer was complete; send the request again"))
        raise
    except Exception:  # a defect of ours must still be an answer to all who wait for this one
        log.exception("request %s failed", exchange.request_id)
        flight.land(InternalError("internal error; the server's log has the details under this request id"))
    else:
        flight.land()
    finally:
        if exchange.reply is not None:
            exchange.reply.close()
        leave(exchange)
    await _keep(flight, parts, question, vector)


async def _keep(flight: Flight, parts: Parts, question: Question, vector: Sequence[float] | None) -> None:
    exchange, cache = flight.exchange, parts.response_cache
    if cache is None or not flight.open or flight.error or exchange.error or exchange.transcript.malformed:
        return
    if exchange.known_reply.endpoint.model != question.model:
        return  # a stand-in answered
    said = flight.recorded()
    if exchange.stream:
        answer = whole(said) if len(said) < _LOOP_BYTES else await asyncio.to_thread(whole, said)
        usage = exchange.transcript.usage
        if answer is not None and usage is not None and "usage" not in answer:
            answer["usage"] = msgspec.to_builtins(usage)  # it was hidden from who asked
    else:
        answer = read_whole(said) if len(said) <= cache.config.max_answer_bytes else None
    if answer is not None:
        await cache.keep(question, answer, vector)


def _tell(exchange: Exchange, parts: Parts, result: str) -> None:
    exchange.answer_headers.append((b"x-parkway-cache", result.encode()))
    parts.metrics.recalled(result)
