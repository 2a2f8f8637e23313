"""The response cache: finds answers to questions that were asked before, and keeps those that may be given again."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

from parkway.aggregate.response_cache.config import ResponseCacheConfig
from parkway.aggregate.response_cache.generations import Generations
from parkway.aggregate.response_cache.likeness import Likeness
from parkway.aggregate.response_cache.question import WORLDLY, KeptAnswer, Owner, Question, ask
from parkway.aggregate.response_cache.shelf import Shelf
from parkway.core.chat import ChatRequest
from parkway.core.completions import CompletionRequest
from parkway.core.embeddings import EmbeddingRequest
from parkway.core.errors import ParkwayError
from parkway.core.rerank import RerankRequest
from parkway.core.wire import encode

_MOST_TRACED = 10_000
"""Answers given lately that a thumb down can still take back."""

_MOST_CHARS = 400
"""Of a text that is compared by its meaning. Embedding models read a few hundred tokens and leave the rest: two longer
texts with a common beginning would mean the same to them."""

Embed = Callable[[str, list[str], float], Awaitable[list[list[float]]]]

Request = ChatRequest | CompletionRequest | EmbeddingRequest | RerankRequest

log = logging.getLogger(__name__)

_decode = msgspec.json.Decoder(dict[str, Any]).decode


class ResponseCache:
    """Answers by question.

    Args:
        embed: Makes a vector of a text within a number of seconds, or raises a `ParkwayError`; with it questions are
            answered that only mean the same.
        served_as: What the endpoints of a model call it, in a fixed order; empty where nobody serves it.
    """

    def __init__(
        self, config: ResponseCacheConfig, shelf: Shelf, generations: Generations,
        served_as: Callable[[str], Sequence[str]],
        embed: Embed | None = None,
    ) -> None:  # fmt: skip
        self.config = config
        self.shelf = shelf
        self._generations = generations
        self._served_as = served_as
        self._embed = embed if config.semantic else None
        self._likeness = Likeness(config.semantic_threshold, config.semantic_entries, config.ttl_s)
        self._mute = False
        self._given: OrderedDict[str, bytes] = OrderedDict()

    def takes(self, request: Request) -> bool:
        """Whether an answer to the request may be expected to be as good another time."""
        if self.config.keep == "all" or not isinstance(request, ChatRequest | CompletionRequest):
            return True
        return request.temperature == 0 or request.seed is not None

    def question(
        self,
        request: Request,
        fields: dict[str, Any],
        owner: Owner,
        path: str,
        filtered: str = "",
    ) -> Question | None:
        """What the request asks; None where its answer is not to be given again.

        Args:
            fields: Of the request as the endpoint would get it, decoded.
            filtered: What its answer has to pass before anybody sees it.
        """
        if not self.config.tools and any(fields.get(name) for name in WORLDLY):
            return None
        names = self._served_as(request.model)
        if not names:
            return None
        limit = None
        if isinstance(request, ChatRequest | CompletionRequest) and (request.n or 1) == 1:
            limit = request.answer_limit if isinstance(request, ChatRequest) else request.max_tokens
        generation = self._generations.of(request.model)
        return ask(
            fields, owner, path, request.model, (names, filtered),
            generation=generation, limit=limit, semantic=self.config.semantic,
        )  # fmt: skip

    async def find(self, question: Question) -> KeptAnswer | None:
        """The answer to exactly this question."""
        return await self.shelf.get(question.key, question.model, question.generation)

    async def vector(self, question: Question) -> Sequence[float] | None:
        """What the text of the question means; None where that is not wanted, or cannot be had in time."""
        if self._embed is None or question.rest is None or not 0 < len(question.text) <= _MOST_CHARS:
            return None
        try:
            (vector,) = await self._embed(self.config.semantic_model, [question.text], self.config.semantic_timeout_s)
        except ParkwayError as error:
            if not self._mute:
                log.warning("response cache: questions are not compared by meaning: %s", error.message)
            self._mute = True
            return None
        self._mute = False
        return vector

    async def find_alike(self, question: Question, vector: Sequence[float]) -> tuple[bytes, KeptAnswer] | None:
        """Key and answer of a question that means the same and is the same in all else."""
        if question.rest is not None:
            for key in self._likeness.find(question.rest, question.text, vector):
                if (answer := await self.shelf.get(key, question.model, question.generation)) is not None:
                    return key, answer
        return None

    async def keep(self, question: Question, answer: dict[str, Any], vector: Sequence[float] | None = None) -> bool:
        """Keeps a whole answer, if it is one to be given again; says whether. `vector` is that of the question."""
        if not self._is_final(question, answer):
            return False
        body = encode(_as_cached(answer))
        if len(body) > self.config.max_answer_bytes:
            return False
        await self.shelf.put(question.key, KeptAnswer(question.model, time.time(), body))
        if vector is not None and question.rest is not None:
            self._likeness.learn(question.rest, question.key, question.text, vector)
        return True

    def trace(self, request_id: str, key: bytes) -> None:
        """Remembers which answer a request was given."""
        self._given[request_id] = key
        if len(self._given) > _MOST_TRACED:
            self._given.popitem(last=False)

    async def distrust(self, request_id: str) -> None:
        """Forgets the answer that a request was given."""
        if (key := self._given.pop(request_id, None)) is not None:
            await self.shelf.drop(key)

    async def learn(self, seen: dict[str, int]) -> None:
        """Takes over how often the answers of each model, and under `""` all, were cleared: what was kept before that
        is not found any more here, nor where others share a shelf."""
        for model in self._generations.learn(seen):
            await self.shelf.clear(model, seen.get(model, 0))

    def _is_final(self, question: Question, answer: dict[str, Any]) -> bool:
        """Whether the answer ended because it was complete, or at the limit that the request itself sets.

        What was cut by anything else, such as a filter, may come out differently next time.
        """
        choices = answer.get("choices")
        if choices is None:
            return True  # embeddings and rankings
        good = {"stop", "tool_calls", "function_call"} if self.config.tools else {"stop"}
        if question.limit is not None and (answer.get("usage") or {}).get("completion_tokens") == question.limit:
            good.add("length")
        return bool(choices) and all(choice.get("finish_reason") in good for choice in choices)


def _as_cached(answer: dict[str, Any]) -> dict[str, Any]:
    """The answer with all tokens of the prompt told as cached: nobody has read them again."""
    usage = answer.get("usage")
    if not isinstance(usage, dict) or "choices" not in answer:
        return answer
    details = {**(usage.get("prompt_tokens_details") or {}), "cached_tokens": usage.get("prompt_tokens", 0)}
    return {**answer, "usage": {**usage, "prompt_tokens_details": details}}


def read_whole(body: bytes) -> dict[str, Any] | None:
    """The answer in a body; None where it cannot be read."""
    try:
        return _decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
