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
from parkway.aggregate.grounding.question import bounded, question_in
from parkway.aggregate.grounding.quotation import Quoted, link, quote
from parkway.aggregate.response_cache.retelling import events
from parkway.aggregate.transcript import Transcript
from parkway.core.chat import ChatRequest
from parkway.core.errors import (
    EndpointFailed,
    InvalidRequest,
    ModelNotFound,
    NoEndpoint,
    Overloaded,
    ParkwayError,
    RelayedError,
    UnsupportedField,
    nearest,
)
from parkway.core.ids import new_id
from parkway.core.knowledge import Hit
from parkway.core.wire import encode
from parkway.pipeline.embedding import Embedding
from parkway.pipeline.exchange import Exchange
from parkway.pipeline.grounds import Grounding, Looked
from parkway.pipeline.guard import LOOP_NS, report
from parkway.pipeline.guarded import answer_guard
from parkway.pipeline.lookup import look_up
from parkway.pipeline.memory import said_in
from parkway.pipeline.parts import Parts
from parkway.pipeline.reservation import lease_s
from parkway.pipeline.routing import wants_usage
from parkway.policy.guardrails.guard import Found as Findings
from parkway.policy.guardrails.guard import Guard
from parkway.policy.guardrails.window import apply

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
        UnsupportedField: A form is asked for, and no model is asked for words of its own.
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
    formed = _form_of(request)
    if formed is not None and terms.tier != "generated":
        raise UnsupportedField(
            f"`{formed}` together with `knowledge`: answers of {request.model[:200]!r} are quoted from documents "
            f"(tier `{terms.tier}`), and quotations have no other form; leave one out, or ask another model",
            param=formed,
        )
    search = grounds.tasks.start(look_up(exchange, request, said, parts), name=exchange.request_id)
    exchange.grounding = grounding = Grounding(
        terms,
        grounds.config,
        question,
        search,
        request.n or 1,
        formed is not None,
        _tools_of(request),
        resumed=said[-1].role == "tool",
    )
    exchange.answer_headers.append((_TIER, b"unchecked" if grounding.formed else terms.tier.encode()))
    if terms.tier == "generated" and exchange.reservation is not None:
        grounding.reserved = terms.context_tokens + FRAME_TOKENS
        exchange.prompt_tokens += grounding.reserved
        await parts.limiter.extend(exchange.reservation, grounding.reserved, lease_s(exchange))
    exchange.mark("ground")
    return exchange


def _form_of(request: ChatRequest) -> str | None:
    """The field that says that the answer shall be more than text."""
    if request.structured_outputs is not None:
        return "structured_outputs"
    form = request.response_format
    return "response_format" if form is not None and form.get("type") != "text" else None


def _tools_of(request: ChatRequest) -> frozenset[str]:
    """The names of the tools that the client offers."""
    functions = (tool.get("function") for tool in request.tools or ())
    names = (function.get("name") for function in functions if isinstance(function, dict))
    return frozenset(name for name in names if isinstance(name, str))


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
    if grounding.terms.tier == "generated" and (grounding.known or grounding.tools):
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
        if grounding.config.on_failure == "error" or grounding.terms.tier != "generated" or grounding.formed:
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
        question, query = grounding.question, grounding.query
        asked = query if query.startswith(question) else f"{question} {query}"
        said = await asyncio.to_thread(quote, grounding.passages, asked, grounding.config.sentences)
    grounding.told = grounding.tell(answered=grounding.known, citations=said.citations)
    body = encode(_completion(request.model, said, grounding))
    guard = answer_guard(exchange, parts)
    if guard is not None:
        body = await guard.body(body)
        report(exchange, parts, guard.found, "output")
    exchange.answered_by = request.model
    exchange.transcript.body(body)
    exchange.transcript.usage = None  # it cost nothing
    exchange.first_token = time.monotonic() if exchange.stream else None
    exchange.closing = events(body, usage=wants_usage(exchange)) if exchange.stream else body


def _completion(model: str, said: Quoted, grounding: Grounding) -> dict[str, object]:
    message = {
        "role": "assistant",
        "content": None if grounding.formed else said.text,
        "refusal": said.text if grounding.formed else None,  # that it is not known has no other form
        "annotations": annotations_of(said.citations),
    }
    choice = {"message": message, "finish_reason": "stop", "logprobs": None}
    told = {"parkway": grounding.told} if grounding.choices > 1 else {}
    return {
        "id": new_id("chatcmpl"),
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [{"index": index, **choice, **told} for index in range(grounding.choices)],
        "usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
        "parkway": grounding.told,
    }
