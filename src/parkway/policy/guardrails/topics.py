"""Topics that are not spoken about: a text is near one if its meaning is near one of the topic's phrases."""

from __future__ import annotations

import asyncio
import operator
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, field_validator

from parkway.core.configuration import Section
from parkway.core.errors import ParkwayError
from parkway.policy.guardrails.finding import Finding
from parkway.policy.guardrails.pattern import KindName

Vector = Sequence[float]
Embed = Callable[[str, list[str], float], Awaitable[Sequence[Vector]]]
"""Vectors of texts by a model, within seconds; raises a `ParkwayError` where that fails."""

_PASSAGE_CHARS = 600
_UNAVAILABLE = "unavailable"
"""The kind of a finding where nobody could judge. No topic can be called so: see `TopicsOptions`."""

Phrase = Annotated[str, StringConstraints(min_length=3, max_length=600)]


class TopicsOptions(Section):
    """What is banned, and how near is too near.

    Attributes:
        topics: Topic -> phrases that are about it.
        threshold: Cosine of two meanings from which on a text is about a topic. With park-embed the same subject in
            other words mostly has 0.5 to 0.75, what only shares a word with it under 0.4.
        model: What embeds; any model that this gateway serves.
        timeout_s: The longest that a request waits for it.
        on_failure: What happens when it does not answer in time: `allow` the text unseen, or `block` it.
        max_passages: A longer text is looked at in so many passages of 600 characters, spread over it.
    """

    topics: Annotated[dict[KindName, Annotated[list[Phrase], Field(min_length=1, max_length=64)]], Field(min_length=1)]
    threshold: float = Field(default=0.5, gt=0, le=1)
    model: str = "park-embed"
    timeout_s: float = Field(default=2.0, gt=0, le=60)
    on_failure: Literal["allow", "block"] = "allow"
    max_passages: Annotated[int, Field(ge=1, le=256)] = 16

    @field_validator("topics")
    @classmethod
    def _not_taken(cls, topics: dict[str, list[str]]) -> dict[str, list[str]]:
        if _UNAVAILABLE in topics:
            raise ValueError(f"`{_UNAVAILABLE}` is what failures are called; give the topic another name")
        return topics


class Topics:
    """Judges texts by their meaning. Unlike the other checks it has to ask, so that it is awaited.

    Its phrases are embedded at the first text and kept.
    """

    def __init__(self, options: TopicsOptions, embed: Embed) -> None:
        self._options = options
        self._embed = embed
        self._phrases: list[tuple[str, Vector]] | None = None

    async def find(self, texts: Iterable[str]) -> Finding | None:
        """The topic that one of `texts` is nearest to, if that is too near.

        Where nobody answers in time: a finding of the kind `unavailable`; `forgives` says what to make of it.
        """
        passages = self._passages(texts)
        if not passages:
            return None
        try:
            async with asyncio.timeout(self._options.timeout_s):
                if self._phrases is None:
                    self._phrases = await self._known()
                vectors = await self._embed(self._options.model, passages, self._options.timeout_s)
                kind, score = await asyncio.to_thread(nearest, vectors, self._phrases)
        except (ParkwayError, TimeoutError):
            return Finding(0, 0, _UNAVAILABLE)
        return Finding(0, 0, kind, score) if score >= self._options.threshold else None

    def forgives(self, finding: Finding) -> bool:
        """Whether a text passes all the same: nobody could judge it, and `on_failure` is `allow`."""
        return finding.kind == _UNAVAILABLE and self._options.on_failure == "allow"

    async def _known(self) -> list[tuple[str, Vector]]:
        flat = [(kind, phrase) for kind, phrases in self._options.topics.items() for phrase in phrases]
        texts = [phrase for _, phrase in flat]
        vectors = await self._embed(self._options.model, texts, self._options.timeout_s)
        return [(kind, vector) for (kind, _), vector in zip(flat, vectors, strict=True)]

    def _passages(self, texts: Iterable[str]) -> list[str]:
        passages = [
            text[at : at + _PASSAGE_CHARS]
            for text in texts
            for at in range(0, len(text), _PASSAGE_CHARS)
            if not text[at : at + _PASSAGE_CHARS].isspace()
        ]
        most = self._options.max_passages
        if len(passages) <= most:
            return passages
        return [passages[index * (len(passages) - 1) // max(1, most - 1)] for index in range(most)]


def nearest(vectors: Iterable[Vector], phrases: Iterable[tuple[str, Vector]]) -> tuple[str, float]:
    """The kind of the phrase that any of `vectors` is nearest to, with the cosine between them."""
    known = [(kind, phrase, _length(phrase)) for kind, phrase in phrases]
    best = ("", -1.0)
    for vector in vectors:
        own = _length(vector)
        for kind, phrase, length in known:
            cosine = sum(map(operator.mul, vector, phrase)) / (own * length or 1.0)
            if cosine > best[1]:
                best = (kind, cosine)
    return best


def _length(vector: Vector) -> float:
    return sum(map(operator.mul, vector, vector)) ** 0.5
