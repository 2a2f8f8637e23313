"""What do the documents say: a chat that names collections is answered from what is found in them."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
import time
from collections import Counter
from dataclasses import replace
from types import TracebackType

import msgspec

from parkway.aggregate.grounding.citation import annotations_of
from parkway.aggregate.grounding.config import terms_for
from parkway.aggregate.grounding.passage import Passage, cost_of, merged, select
from parkway.aggregate.grounding.prompt import FRAME_TOKENS
from parkway.aggregate.grounding.question import bounded, query_of, question_in, rewriting
from parkway.aggregate.grounding.quotation import Quoted, link, quote
from parkway.aggregate.response_cache.retelling import events
from parkway.aggregate.transcript import Transcript
from parkway.core.chat import ChatRequest, Message
from parkway.core.errors import (
    CollectionNotFound,
    EndpointFailed,
    InvalidRequest,
    KnowledgeUnavailable,
    ModelNotFound,
    NoEndpoint,
    Overloaded,
    ParkwayError,
    RelayedError,
    nearest,
)
from parkway.core.grounding import Grounded
from parkway.core.ids import new_id
from parkway.core.knowledge import Found, Hit, Search
from parkway.core.trace import Span
from parkway.core.wire import encode
from parkway.pipeline.embedding import Embedding
from parkway.pipeline.exchange import Exchange
from parkway.pipeline.grounds import Grounding, Looked, no_collection
from parkway.pipeline.guard import LOOP_NS, report
from parkway.pipeline.guarded import answer_guard
from parkway.pipeline.memory import said_in
from parkway.pipeline.parts import Parts
from parkway.pipeline.reservation import lease_s
from parkway.pipeline.routing import wants_usage
from parkway.policy.guardrails.guard import Found as Findings
from parkway.policy.guardrails.guard import Guard
from parkway.policy.guardrails.window import apply
from parkway.router.call import Call

log = logging.getLogger(__name__)

_TIER = b"x-parkway-tier"
_UNREACHABLE = (NoEndpoint, Overloaded, EndpointFailed)
_TOO_MANY = (429, 503)
_QUERY_TOKENS = 96
_MAX_QUERY_BYTES = 65_536
_EMBED_TIMEOUT_S = 2.0


async def ground(exchange: Exchange, parts: Parts) -> Exchange:
    """Begins to search the collections that the request names; what passages may take of the prompt is reserved.

    Raises:
        InvalidRequest: Nothing is asked in words.
        RateLimited, BudgetExceeded: The prompt is too much with passages.
    """
    request = exchange.request
    if not isinstance(request, ChatRequest) or not request.knowledge:
        return exchange
    grounds = parts.grounds
    said = said_in(exchange, request)
    question = bounded(question_in(request.messages))
    if not question:
        raise InvalidRequest("`knowledge` needs a question in words: no message of the user has any", param="messages")
    terms = terms_for(request.model, grounds.config, grounds.models, request.grounding)
    search = grounds.tasks.start(_search(exchange, request, said, parts), name=exchange.request_id)
    exchange.grounding = grounding = Grounding(terms, grounds.config, question, search)
    exchange.answer_headers.append((_TIER, terms.tier.encode()))
    if terms.tier == "generated" and exchange.reservation is not None:
        grounding.reserved = terms.context_tokens + FRAME_TOKENS
        exchange.prompt_tokens += grounding.reserved
        await parts.limiter.extend(exchange.reservation, grounding.reserved, lease_s(exchange))
    exchange.mark("ground")
    return exchange


async def quoted(exchange: Exchange, parts: Parts) -> bool:
    """Answers without a model where none is to be asked: the tier quotes or links.

    Where answers are cached it waits for the search: what was found is part of what is asked.

    Raises:
        ParkwayError: See `read`.
    """
    grounding = exchange.grounding
    if grounding is None or (grounding.terms.tier == "generated" and parts.response_cache is None):
        return False
    return not await read(exchange, parts)


async def read(exchange: Exchange, parts: Parts) -> bool:
    """Reads what was found, when it is there. False: there is nothing to ask a model; then it is answered.

    Raises:
        CollectionNotFound: One of the collections is gone.
        KnowledgeUnavailable, IndexUnavailable: Not all of them can be searched now.
        ModelNotFound: Nobody serves the model in whose place it would be answered.
    """
    grounding = exchange.grounding
    if grounding is None or grounding.told is not None:
        return grounding is None
    if not grounding.read:
        await _take_in(exchange, grounding, await grounding.search, parts)
    if grounding.known and grounding.terms.tier == "generated":
        return True
    await _answer(exchange, grounding, parts)
    return False


class QuotingInstead:
    """Answers in the documents' own words where, inside of the context, the model turns out not to be there.

    The client must not have seen anything yet, and the settings must want it.
    """

    __slots__ = ("_exchange", "_parts")

    def __init__(self, exchange: Exchange, parts: Parts) -> None:
        self._exchange = exchange
        self._parts = parts

    async def __aenter__(self) -> None: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        exchange = self._exchange
        grounding = exchange.grounding
        if grounding is None or not _is_unreachable(error) or exchange.client.started:
            return False
        if grounding.config.on_failure == "error" or grounding.terms.tier != "generated":
            return False
        log.info("request %s: answered by quotations, for: %s", exchange.request_id, error)
        if exchange.reply is not None:
            exchange.reply.close()
        exchange.reply, exchange.asked, exchange.transcript = None, False, Transcript()
        grounding.terms = replace(grounding.terms, tier="extractive")
        exchange.answer_headers = [
            *(header for header in exchange.answer_headers if header[0] != _TIER), (_TIER, b"extractive"),
        ]  # fmt: skip
        await read(exchange, self._parts)
        return True


def _is_unreachable(error: BaseException | None) -> bool:
    """Whether it says that no endpoint answers, or that it has too much to do."""
    return isinstance(error, _UNREACHABLE) or (isinstance(error, RelayedError) and error.status in _TOO_MANY)


async def _search(exchange: Exchange, request: ChatRequest, said: list[Message], parts: Parts) -> Looked:
    """Searches all collections beside each other."""
    config, caller = parts.grounds.config, exchange.known_caller
    span = exchange.trace.begin("retrieve")
    looked = Looked(query_of(said))
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
                *(parts.grounds.knowledge.search(name, search, caller.principals) for name in _names(request)),
                return_exceptions=True,
            )
        if (failed := next((each for each in told if isinstance(each, BaseException)), None)) is not None:
            raise failed
        looked.found = [each for each in told if isinstance(each, Found)]
        _tell(span, request, looked)
    except CollectionNotFound:
        looked.error = CollectionNotFound(no_collection(_names(request)), param="knowledge")
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


def _names(request: ChatRequest) -> list[str]:
    return list(dict.fromkeys(request.knowledge or ()))


def _tell(span: Span, request: ChatRequest, looked: Looked) -> None:
    """What the span says of a search."""
    span.attributes["parkway.knowledge.collections"] = _names(request)
    span.attributes["parkway.knowledge.hits"] = sum(len(found.hits) for found in looked.found)
    stages = Counter[str]()
    for found in looked.found:
        for stage, took in found.took_ms.items():
            stages[stage] = max(stages[stage], took)  # pyright: ignore[reportArgumentType] - floats count, too
    span.attributes |= {f"parkway.knowledge.{stage}_ms": took for stage, took in stages.items()}


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


async def _take_in(exchange: Exchange, grounding: Grounding, looked: Looked, parts: Parts) -> None:
    """Chooses the passages, of those that guardrails let pass."""
    if looked.error is not None:
        raise looked.error
    config = grounding.config
    hits = merged([found.hits for found in looked.found])
    shown = await _guarded(exchange, hits, parts)
    grounding.query = looked.query
    grounding.confidence = max((_share(found.confidence) for found in looked.found), default=0.0)
    grounding.passages = select(shown, grounding.terms.context_tokens, config.max_passages)
    grounding.versions = _versions(looked, grounding.passages)
    grounding.read = True
    if config.embed_model is not None:
        grounding.similar = _similar(Embedding(parts.router), config.embed_model, config.min_similarity)
    if grounding.reserved and exchange.reservation is not None:
        took = FRAME_TOKENS + sum(cost_of(passage.hit, passage.text) for passage in grounding.passages)
        saved = grounding.reserved - took
        expected = exchange.reservation.expected
        exchange.prompt_tokens -= saved
        # What is charged where the endpoint does not count; the rest of what was taken is given back at the end.
        exchange.reservation.expected = expected._replace(prompt_tokens=expected.prompt_tokens - saved)


def _share(number: float) -> float:
    return min(1.0, max(0.0, number)) if math.isfinite(number) else 0.0


def _versions(looked: Looked, passages: list[Passage]) -> str:
    """A hash of the collections' versions and of all that is shown."""
    digest = hashlib.sha256(encode([found.version for found in looked.found]))
    for passage in passages:
        hit = passage.hit
        digest.update(encode([hit.collection, hit.passage_id, hit.title, hit.uri, hit.start, hit.end, passage.text]))
    return digest.hexdigest()


async def _guarded(exchange: Exchange, hits: list[Hit], parts: Parts) -> list[tuple[Hit, str]]:
    """Hits with their texts as guardrails let them pass: what they block is left out, what they redact is gone."""
    model, team = exchange.known_request.model, exchange.known_caller.team
    rules = parts.guardrails.guard("input", model, team) if parts.guardrails.active else None
    if rules is None:
        return [(hit, hit.text) for hit in hits]
    found: Findings = Counter()
    try:
        if rules.cost_ns * sum(len(hit.text) for hit in hits) > LOOP_NS:
            shown = await asyncio.to_thread(_looked_at, hits, rules, found)
        else:
            shown = _looked_at(hits, rules, found)
        for rule, topics in rules.topics:
            kept: list[tuple[Hit, str]] = []
            for hit, text in shown:
                finding = await topics.find([text])
                if finding is not None:
                    found[rule, finding.kind] += 1
                    if rule.action == "block" and not topics.forgives(finding):
                        continue
                kept.append((hit, text))
            shown = kept
    finally:
        report(exchange, parts, found, "input")
    return shown


def _looked_at(hits: list[Hit], rules: Guard, found: Findings) -> list[tuple[Hit, str]]:
    """Runs in any thread."""
    shown: list[tuple[Hit, str]] = []
    for hit in hits:
        results = [apply(rules, text) for text in (hit.text, hit.title, *hit.headings)]
        for result in results:
            found.update(result.found)
        if all(result.block is None for result in results):
            text, title, *headings = (result.text for result in results)
            shown.append((msgspec.structs.replace(hit, title=title, headings=headings), text))
    return shown


def _similar(embed: Embedding, model: str, least: float):
    """Whether an embedding model says that two texts mean the same; where it does not answer, they do not."""

    async def similar(one: str, other: str) -> bool:
        try:
            first, second = await embed(model, [one, other], _EMBED_TIMEOUT_S)
        except ParkwayError:
            return False
        size = math.hypot(*first) * math.hypot(*second)
        return bool(size) and sum(a * b for a, b in zip(first, second, strict=False)) / size >= least

    return similar


async def _answer(exchange: Exchange, grounding: Grounding, parts: Parts) -> None:
    """The answer of a request for which no model is asked, as `infer` leaves one."""
    request, terms = exchange.known_request, grounding.terms
    if request.model not in (known := parts.router.models()):
        hint = nearest(request.model, known) or " `GET /v1/models` lists those that do."
        raise ModelNotFound(f"the model {request.model[:200]!r} does not exist.{hint}", param="model")
    if not grounding.known:
        said = Quoted(grounding.config.unknown, [])
    elif terms.tier == "links":
        said = link(grounding.passages)
    else:
        asked = f"{grounding.question} {grounding.query}"
        said = await asyncio.to_thread(quote, grounding.passages, asked, grounding.config.sentences)
    grounding.told = Grounded(
        tier=terms.tier,
        answered=grounding.known,
        confidence=grounding.confidence,
        citations=said.citations,
        query=grounding.query,
    )
    body = encode(_completion(request.model, said, grounding.told))
    guard = answer_guard(exchange, parts)
    if guard is not None:
        body = await guard.body(body)
        report(exchange, parts, guard.found, "output")
    exchange.answered_by = request.model
    exchange.transcript.body(body)
    exchange.transcript.usage = None  # it cost nothing
    exchange.first_token = time.monotonic() if exchange.stream else None
    exchange.closing = events(body, usage=wants_usage(exchange)) if exchange.stream else body


def _completion(model: str, said: Quoted, told: Grounded) -> dict[str, object]:
    message = {
        "role": "assistant",
        "content": said.text,
        "refusal": None,
        "annotations": annotations_of(said.citations),
    }
    return {
        "id": new_id("chatcmpl"),
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}],
        "usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
        "parkway": told,
    }
