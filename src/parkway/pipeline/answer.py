"""The story of one request. Read it from top to bottom; each stage is told in the file that it is imported from."""

from __future__ import annotations

import asyncio
import logging

from parkway.core.deadline import Deadline
from parkway.core.errors import DeadlineExceeded, Draining, InternalError, ParkwayError
from parkway.pipeline.admission import admit
from parkway.pipeline.exchange import Exchange
from parkway.pipeline.grounding import QuotingInstead, ground, quoted, read
from parkway.pipeline.guard import guard
from parkway.pipeline.identity import identify
from parkway.pipeline.inference import close, infer, refuse
from parkway.pipeline.memory import aggregate, remember
from parkway.pipeline.parts import Parts
from parkway.pipeline.permission import permit
from parkway.pipeline.queue import leave, queue
from parkway.pipeline.recall import recall
from parkway.pipeline.record import record
from parkway.pipeline.reservation import reserve, settle
from parkway.pipeline.routing import route

log = logging.getLogger(__name__)


async def answer(exchange: Exchange, parts: Parts) -> Exchange:
    """Takes a request from the client to an endpoint, the answer back, and writes down what happened, once.

    Every failure becomes an answer: OpenAI's error object, or an error event if the stream has begun. The one
    exception that leaves here is `CancelledError`: the client has left. Any other cancellation means that the process
    stops, and whoever still waits is told.
    """
    try:
        with Deadline(exchange.deadline):
            await identify(exchange, parts)  # who are you
            await admit(exchange, parts)  # is it a request that we understand
            await permit(exchange, parts)  # may you use this model
            await reserve(exchange, parts)  # how much: limits and budgets
            await guard(exchange, parts)  # may this be said here
            await remember(exchange, parts)  # what was said before
            await ground(exchange, parts)  # what do the documents say: they are searched from now on
            async with QuotingInstead(exchange, parts):  # in the documents' own words, if no model can be had
                if not await quoted(exchange, parts) and not await recall(exchange, parts):  # is it there
                    await queue(exchange, parts)  # whose turn is it
                    if await read(exchange, parts):  # what was found meanwhile
                        await route(exchange, parts)  # which endpoint of the model; another one if it does not answer
                        await infer(exchange, parts)  # the answer, relayed as it comes
            await aggregate(exchange, parts)  # what will be remembered of it
            await close(exchange)  # its end, which the client gets only now: what it has, we have
    except ParkwayError as error:
        if error.status >= 500:
            log.warning("request %s: %s (cause: %r)", exchange.request_id, error.message, error.__cause__)
        exchange.error = error
    except TimeoutError:
        exchange.error = DeadlineExceeded(
            "the request took longer than its time-out, which is gateway.timeout_s or what the client asked for"
        )
    except asyncio.CancelledError:
        if exchange.client.left:
            raise
        exchange.error = Draining("the gateway stopped before the answer was complete; send the request again")
    except Exception:  # a defect of ours must still be an answer with a request id, and a line in the log
        log.exception("request %s failed", exchange.request_id)
        exchange.error = InternalError("internal error; the server's log has the details under this request id")
    finally:
        if exchange.reply is not None:
            exchange.reply.close()
        if exchange.grounding is not None:
            exchange.grounding.search.cancel()
        leave(exchange)
        settle(exchange, parts)
        record(exchange, parts)
    if exchange.error is not None:
        await refuse(exchange, exchange.error)
    return exchange
