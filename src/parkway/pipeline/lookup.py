"""What stands in the documents: the collections that a request names are searched, beside all else."""

from __future__ import annotations

import asyncio
import time

import msgspec

from parkway.aggregate.grounding.question import bounded, query_of, rewriting
from parkway.core.chat import ChatRequest, Message
from parkway.core.errors import CollectionNotFound, KnowledgeUnavailable, ParkwayError
from parkway.core.ids import new_id
from parkway.core.knowledge import Found, Search
from parkway.core.trace import Span
from parkway.core.wire import encode
from parkway.feedback.record import SearchRecord
from parkway.pipeline.exchange import Exchange
from parkway.pipeline.grounds import Looked, no_collection
from parkway.pipeline.parts import Parts
from parkway.router.call import Call

_QUERY_TOKENS = 96
_MAX_QUERY_BYTES = 65_536


async def look_up(exchange: Exchange, request: ChatRequest, said: list[Message], parts: Parts) -> Looked:
    """Searches all collections beside each other."""
    config, caller = parts.grounds.config, exchange.known_caller
    span = exchange.trace.begin("retrieve")
    looked = Looked(query_of(said), list(dict.fromkeys(request.knowledge or ())))
    wanted = request.grounding
    try:
        if config.rewrite_model is not None:
            looked.query = await _rewritten(said, config.rewrite_model, config.rewrite_timeout_s, parts) or looked.query
        search = Search(
            query=looked.query,
            limit=config.hits,
            filter=wanted.filter if wanted is not None else {},
            documents=wanted.documents if wanted is not None else None,
        )
        async with asyncio.timeout(config.search_timeout_s):
            told = await asyncio.gather(
                *(parts.grounds.knowledge.search(name, search, caller.principals) for name in looked.collections),
                return_exceptions=True,
            )
        if (failed := next((each for each in told if isinstance(each, BaseException)), None)) is not None:
            raise failed
        looked.found = [each for each in told if isinstance(each, Found)]
        _tell(span, looked)
    except CollectionNotFound:
        looked.error = CollectionNotFound(no_collection(looked.collections), param="knowledge")
    except ParkwayError as error:
        looked.error = error
    except TimeoutError:
        looked.error = KnowledgeUnavailable(
            f"the collections could not be searched within {config.search_timeout_s:g} s, "
            "set by grounding.search_timeout_s; try again",
            retry_after_s=1.0,
        )
    finally:
        span.end(looked.error.code if looked.error is not None else None)
    return looked


def _tell(span: Span, looked: Looked) -> None:
    """What the span says of a search."""
    told = SearchRecord.of(looked.collections, looked.found)
    span.attributes |= {
        "parkway.knowledge.collections": told.collections,
        "parkway.knowledge.hits": told.hits,
        "parkway.knowledge.cached": told.cached,
        **{f"parkway.knowledge.{stage}_ms": took for stage, took in told.took_ms.items()},
    }


async def _rewritten(said: list[Message], model: str, timeout_s: float, parts: Parts) -> str:
    """The query that a model makes of the conversation; empty where it does not. On Parkway's own account."""
    body = {"model": model, "messages": rewriting(said), "max_tokens": _QUERY_TOKENS, "temperature": 0}
    call = Call(
        model=model,
        path="/chat/completions",
        body=encode(body),
        request_id=new_id("req"),
        deadline=time.monotonic() + timeout_s,
    )
    try:
        async with asyncio.timeout(timeout_s), parts.router.send(call) as reply:
            answer = msgspec.json.decode(await reply.read(_MAX_QUERY_BYTES), type=_Rewritten)
    except (ParkwayError, TimeoutError, msgspec.MsgspecError, UnicodeDecodeError):
        return ""
    query = answer.choices[0].message.content if answer.choices else None
    return bounded(" ".join((query or "").split()).strip("\"'“”"))


class _Words(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    message: _Words


class _Rewritten(msgspec.Struct):
    choices: list[_Choice] = []
