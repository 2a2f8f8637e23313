"""The answer on its way back: relayed as it comes, read on the side."""

from __future__ import annotations

import asyncio
import time

from parkway.core.errors import EndpointFailed, ParkwayError, StreamInterrupted
from parkway.core.sse import CONTENT_TYPE, DONE, EventSplitter, data_of, event
from parkway.core.wire import encode
from parkway.pipeline.exchange import Exchange, Headers
from parkway.pipeline.parts import Parts
from parkway.pipeline.routing import wants_usage

_JSON: Headers = [(b"content-type", b"application/json")]
_EVENTS: Headers = [
    (b"content-type", CONTENT_TYPE.encode()),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # nginx in front of us would otherwise hold the stream back
]


async def infer(exchange: Exchange, parts: Parts) -> Exchange:
    """Relays the endpoint's answer to the client; `exchange.transcript` has read it when this returns.

    Raises:
        EndpointFailed: The answer is not one (no JSON, or too large).
        StreamInterrupted: The stream broke off before its end.
    """
    if exchange.stream:
        await _relay_stream(exchange)
    else:
        await _relay_whole(exchange, parts.bounds.max_answer_bytes)
    return exchange


async def _relay_whole(exchange: Exchange, max_bytes: int) -> None:
    reply = exchange.known_reply
    body = await reply.read(max_bytes)
    exchange.first_token = time.monotonic()
    if not exchange.transcript.body(body):
        raise EndpointFailed(f'endpoint "{reply.endpoint.endpoint_id}" answered with something that is not an answer')
    await exchange.client.start(reply.status, _JSON)
    await exchange.client.send(body, more=False)


async def _relay_stream(exchange: Exchange) -> None:
    """Relays whole events only, so that an error event can follow at any moment."""
    client, transcript, reply = exchange.client, exchange.transcript, exchange.known_reply
    hide_usage = not wants_usage(exchange)
    splitter = EventSplitter()
    done = False
    async for chunk in reply.chunks():
        relayed: list[bytes] = []
        for block in splitter.feed(chunk):
            data = data_of(block)
            if data == b"[DONE]":
                done = True
            elif data is not None:
                transcript.event(data)
                if hide_usage and transcript.usage is not None and b'"choices":[]' in data.replace(b" ", b""):
                    continue
            relayed += (block, b"\n\n")
        if exchange.first_token is None and transcript.first_token:
            exchange.first_token = time.monotonic()
        if relayed:
            if not client.started:
                await client.start(reply.status, _EVENTS)
            await client.send(b"".join(relayed), more=True)
        if done:
            break
    if transcript.error is not None:  # the endpoint has told the client itself, in the stream
        exchange.error = transcript.error
    elif not done and transcript.finish_reason is None:
        raise StreamInterrupted(
            f'endpoint "{reply.endpoint.endpoint_id}" broke off the answer before its end; what was sent is incomplete'
        )
    if not client.started:
        await client.start(reply.status, _EVENTS)
    await client.send(b"" if done else DONE, more=False)


_LAST_WORDS_S = 5.0  # a client that does not read must not hold the request open past its deadline


async def refuse(exchange: Exchange, error: ParkwayError) -> None:
    """Tells the client what went wrong: as the answer, or as the last event of a stream that has begun."""
    client = exchange.client
    body = encode(error.to_body(exchange.request_id))
    async with asyncio.timeout(_LAST_WORDS_S):
        if not client.started:
            headers = [(name.encode(), value.encode()) for name, value in error.headers().items()]
            await client.start(error.status, [*_JSON, *headers])
            await client.send(body, more=False)
        elif not client.finished:
            # No [DONE] after it: a client that takes [DONE] for the end must not take half an answer for a whole.
            await client.send(event(body), more=False)
