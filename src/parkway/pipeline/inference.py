"""The answer on its way back: relayed as it comes, read on the side."""

from __future__ import annotations

import re
import time
from functools import lru_cache

from parkway.aggregate.transcript import Transcript
from parkway.core.deadline import Deadline
from parkway.core.errors import BudgetExceeded, EndpointFailed, ParkwayError, RelayedError, StreamInterrupted
from parkway.core.sse import CONTENT_TYPE, DONE, EventSplitter, data_of, event
from parkway.core.wire import encode
from parkway.pipeline.exchange import Exchange, Headers
from parkway.pipeline.grounded import GroundedAnswer, grounded_answer
from parkway.pipeline.guard import report
from parkway.pipeline.guarded import AnswerGuard, answer_guard
from parkway.pipeline.meter import meter_of
from parkway.pipeline.parts import Parts
from parkway.pipeline.routing import reroute, wants_usage
from parkway.router.router import Reply

_JSON: Headers = [(b"content-type", b"application/json")]
_EVENTS: Headers = [
    (b"content-type", CONTENT_TYPE.encode()),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # nginx in front of us would otherwise hold the stream back
]


_ONLY_USAGE = re.compile(rb'"choices"\s*:\s*\[\s*\]')
# Inside of a string the quotes would be escaped, so this is a field.
_NO_USAGE = re.compile(rb',\s*"usage"\s*:\s*null')


async def infer(exchange: Exchange, parts: Parts) -> Exchange:
    """Relays the endpoint's answer to the client; `exchange.transcript` has read it when this returns.

    An answer that turns out to be none before the client has seen anything of it is asked for elsewhere.

    The end of it is held in `exchange.closing`: a client that has the whole answer may rely on its being remembered.

    Raises:
        EndpointFailed: The answer is not one (no JSON, or too large).
        StreamInterrupted: The stream broke off before its end.
        BudgetExceeded: No budget pays for the rest of the stream.
    """
    while True:
        try:
            await _relay(exchange, parts)
            return exchange
        except (EndpointFailed, RelayedError) as error:
            _hold_against(exchange.known_reply, error)
            if exchange.client.started or error.status == 400:
                raise
            await reroute(exchange, parts, error)


async def _relay(exchange: Exchange, parts: Parts) -> None:
    """Relays the answer of one endpoint, through the guardrails that apply to it."""
    guard = answer_guard(exchange, parts)
    check = grounded_answer(exchange)
    try:
        if exchange.stream:
            await _relay_stream(exchange, guard, check, parts)
        else:
            await _relay_whole(exchange, guard, check, parts.bounds.max_answer_bytes)
    finally:  # also what was found before a client left
        if guard is not None:
            report(exchange, parts, guard.found, "output")


async def _relay_whole(
    exchange: Exchange, guard: AnswerGuard | None, check: GroundedAnswer | None, max_bytes: int
) -> None:
    reply = exchange.known_reply
    body = await reply.read(max_bytes)
    if guard is not None:
        body = await guard.body(body)
    if check is not None:
        body = await check.body(body)
    exchange.transcript.body(body)
    if exchange.transcript.malformed:
        raise EndpointFailed(f'endpoint "{reply.endpoint.endpoint_id}" answered with something that is not an answer')
    if exchange.transcript.error is not None:
        raise _told(exchange)
    exchange.closing = body


async def _relay_stream(
    exchange: Exchange, guard: AnswerGuard | None, check: GroundedAnswer | None, parts: Parts
) -> None:
    """Relays whole events only, so that an error event can follow at any moment.

    Where somebody else could answer, what comes before the first content is held: an endpoint may say that it is
    overloaded inside an answer with status 200.
    """
    client, transcript, reply = exchange.client, exchange.transcript, exchange.known_reply
    meter = meter_of(exchange, parts)
    hide_usage = not wants_usage(exchange)
    conversing = exchange.conversation_id is not None
    held: list[bytes] = []
    opening: list[bytes] | None = [] if len(exchange.models) > 1 or parts.router.could_be_another(reply) else None

    def read(blocks: list[bytes]) -> list[bytes]:
        """Has the transcript read `blocks`; returns those that may be sent now."""
        relayed: list[bytes] = []
        for block in blocks:
            data = data_of(block)
            if data is not None:
                transcript.event(data)
                if hide_usage and b'"usage"' in data:
                    if transcript.usage is not None and _ONLY_USAGE.search(data):
                        continue
                    block = _NO_USAGE.sub(b"", block)
            over = transcript.done or (conversing and transcript.finish_reason is not None)
            (held if over else relayed).extend((block, b"\n\n"))
        return relayed

    async def send(relayed: list[bytes]) -> None:
        nonlocal opening
        if exchange.first_token is None and transcript.first_token:
            exchange.first_token = time.monotonic()
        if not client.started:
            _check_opening(exchange)
            if opening is not None and not _has_begun(transcript, opening):
                opening += relayed
                return
            relayed, opening = [*(opening or ()), *relayed], None
        if relayed:
            await send_events(exchange, b"".join(relayed))

    async def pass_on(blocks: list[bytes]) -> None:
        """Reads and sends `blocks`, as far as they are paid for."""
        if meter is None:
            await send(read(blocks))
            return
        paid: list[bytes] = []
        try:
            for block in blocks:
                relayed = read([block])
                if meter.over:
                    await meter.pay()
                paid += relayed
        except BudgetExceeded:
            await send(paid)
            raise
        await send(paid)

    splitter = EventSplitter()
    async for chunk in reply.chunks():
        blocks = splitter.feed(chunk)
        if guard is not None:
            blocks = await guard.blocks(blocks)
        await pass_on(blocks if check is None else await check.blocks(blocks))
        if transcript.done:
            if guard is None or not guard.cut:
                await reply.finish()
            break
    if guard is not None and not transcript.done:
        rest = await guard.rest()
        await pass_on(rest if check is None else await check.blocks(rest))
    if transcript.error is not None:  # the endpoint has told the client itself, in the stream
        exchange.error = _told(exchange)
        _hold_against(reply, exchange.error)
    elif not transcript.ended:
        raise StreamInterrupted(
            f'endpoint "{reply.endpoint.endpoint_id}" broke off the answer before its end; what was sent is incomplete'
        )
    exchange.closing = b"".join(held) + (b"" if transcript.done or exchange.error else DONE)


_MAX_OPENING_BYTES = 64 * 1024  # held before the first content; an endpoint with more to say is taken at its word


def _has_begun(transcript: Transcript, opening: list[bytes]) -> bool:
    """Whether what has come is an answer for certain."""
    begun = transcript.first_token or transcript.ended
    return begun or sum(map(len, opening)) > _MAX_OPENING_BYTES


def _check_opening(exchange: Exchange) -> None:
    """Raises what an endpoint says is wrong, or that it says nothing that can be read, while it can still be told."""
    transcript = exchange.transcript
    if transcript.first_token:
        return
    if transcript.error is not None:
        raise _told(exchange)
    if transcript.malformed:
        raise EndpointFailed(
            f'endpoint "{exchange.known_reply.endpoint.endpoint_id}" began its answer with an event that is not JSON'
        )


async def send_events(exchange: Exchange, data: bytes) -> None:
    """Sends more of a stream, which it begins if need be."""
    if not exchange.client.started:
        await exchange.client.start(200, [*_EVENTS, *exchange.answer_headers, _answered_by(_model(exchange))])
    await exchange.client.send(data, more=True)


async def close(exchange: Exchange) -> Exchange:
    """Sends the end of the answer."""
    client = exchange.client
    if not client.started:
        headers = _EVENTS if exchange.stream else _whole(exchange.closing)
        status = 200 if exchange.reply is None else exchange.reply.status
        await client.start(status, [*headers, *exchange.answer_headers, _answered_by(_model(exchange))])
    await client.send(exchange.closing, more=False)
    return exchange


def _whole(body: bytes) -> Headers:
    return [*_JSON, (b"content-length", str(len(body)).encode())]


def _model(exchange: Exchange) -> str:
    """Which model has answered: the one that was asked for, or a fallback of it."""
    return exchange.answered_by or exchange.known_reply.endpoint.model


@lru_cache(1024)
def _answered_by(model: str) -> tuple[bytes, bytes]:
    """The header that says which model has answered."""
    if not (model.isascii() and model.isprintable()):
        model = "".join(char if char.isascii() and char.isprintable() else "?" for char in model)
    return (b"x-parkway-model", model.encode())


def _hold_against(reply: Reply, error: ParkwayError) -> None:
    """Counts an error inside an answer as the endpoint's failure, unless the request was at fault or it was busy."""
    if isinstance(error, EndpointFailed):
        reply.blame(error.message)
    else:
        reply.spare()


def _told(exchange: Exchange) -> ParkwayError:
    """The error that an endpoint sent inside an answer with status 200."""
    told = exchange.transcript.error
    fields = told if isinstance(told, dict) else {"message": told}
    reason, kind, code = (fields.get(name) for name in ("message", "type", "code"))
    if kind == "invalid_request_error":
        return RelayedError(str(reason)[:2000], status=400, type=kind, code=str(code or "endpoint_refused")[:100])
    if code in ("overloaded", "draining"):
        return RelayedError(str(reason)[:2000], status=503, type="server_error", code=code, retry_after_s=1.0)
    return EndpointFailed(f'endpoint "{exchange.known_reply.endpoint.endpoint_id}" failed: {str(reason)[:2000]}')


_LAST_WORDS_S = 5.0  # a client that does not read must not hold the request open past its deadline


async def refuse(exchange: Exchange, error: ParkwayError) -> None:
    """Tells the client what went wrong: as the answer, or as the last event of a stream that has begun."""
    client = exchange.client
    body = encode(error.to_body(exchange.request_id))
    with Deadline.after(_LAST_WORDS_S):
        if not client.started:
            headers = [(name.encode(), value.encode()) for name, value in error.headers().items()]
            await client.start(error.status, [*_whole(body), *exchange.answer_headers, *headers])
            await client.send(body, more=False)
        elif not client.finished:
            # No [DONE] after it: a client that takes [DONE] for the end must not take half an answer for a whole.
            await client.send(event(body), more=False)
