"""The configuration of grounded answers, and what of it holds for one request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, TypeVar

from pydantic import Field

from parkway.core.configuration import Section
from parkway.core.grounding import Checking, GroundingRequest, Tier

_TIERS: tuple[Tier, ...] = ("links", "extractive", "generated")
"""From the one that leaves the least to the model."""

_CHECKS: tuple[Checking, ...] = ("off", "mark", "drop")
"""From the one that lets the most pass."""

EXTRACTIVE = ("park-mini",)
"""Models that are too small to be trusted with words of their own; so are those made of them, `park-mini:ADAPTER`."""

Share = Annotated[float, Field(ge=0, le=1)]
ContextTokens = Annotated[int, Field(ge=64, le=1_000_000)]


class ModelGrounding(Section):
    """Where a model differs from the section `grounding`."""

    tier: Tier | None = None
    check: Checking | None = None
    context_tokens: ContextTokens | None = None
    min_confidence: Share | None = None


class GroundingConfig(Section):
    """How answers are made of what `knowledge` finds.

    Attributes:
        tier: `generated`: in the model's words, cited and checked; `extractive`: the best sentences, quoted word for
            word; `links`: where to read. `park-mini` is extractive unless its own `grounding.tier` says otherwise.
        check: What becomes of a sentence that no passage supports: `mark` or `drop`; `off` looks at none.
        min_support: The least share of a sentence's words that stand in its passage.
        min_confidence: Below it the answer is `unknown`: how sure the search must be that the answer was found.
        context_tokens: What passages may take of a prompt, as estimated.
        max_passages: The most that a model is shown.
        hits: What is asked of each collection.
        sentences: The most that are quoted.
        search_timeout_s: For all collections together.
        rewrite_model: Makes the query of the conversation; without one, words that the question refers to are added.
        rewrite_timeout_s: The model is given up after this long.
        embed_model: Says whether a sentence means what its passage says where too few words are the same.
        min_similarity: The least cosine for that.
        on_failure: What becomes of an answer whose model cannot be reached or has no room: an `error`, or the best
            sentences, `extractive`.
        unknown: The answer where there is none.
    """

    tier: Tier = "generated"
    check: Checking = "mark"
    min_support: Share = 0.6
    min_confidence: Share = 0.25
    context_tokens: ContextTokens = 2000
    max_passages: int = Field(default=12, ge=1, le=100)
    hits: int = Field(default=20, ge=1, le=200)
    sentences: int = Field(default=3, ge=1, le=20)
    search_timeout_s: float = Field(default=10.0, gt=0, le=300)
    rewrite_model: str | None = Field(default=None, min_length=1, max_length=128)
    rewrite_timeout_s: float = Field(default=2.0, gt=0, le=60)
    embed_model: str | None = Field(default=None, min_length=1, max_length=128)
    min_similarity: Share = 0.8
    on_failure: Literal["error", "extractive"] = "extractive"
    unknown: str = Field(default="I do not know: the documents do not say.", min_length=1, max_length=500)


@dataclass(frozen=True, slots=True)
class Terms:
    """What holds for one request, of `GroundingConfig`."""

    tier: Tier
    check: Checking
    context_tokens: int
    min_confidence: float


def terms_for(
    model: str, config: GroundingConfig, models: Mapping[str, ModelGrounding], asked: GroundingRequest | None
) -> Terms:
    """What holds for a request of `model`. A request may ask for less than the settings allow, never for more."""
    own = models.get(model) or models.get(model.partition(":")[0]) or ModelGrounding()
    small = model.partition(":")[0] in EXTRACTIVE
    tier = own.tier or (_lesser(config.tier, "extractive") if small else config.tier)
    check = own.check or config.check
    context_tokens = _first(own.context_tokens, config.context_tokens)
    min_confidence = _first(own.min_confidence, config.min_confidence)
    if asked is not None:
        tier = _lesser(tier, asked.tier or tier)
        check = _stricter(check, asked.check or check)
        context_tokens = min(context_tokens, _first(asked.context_tokens, context_tokens))
        min_confidence = max(min_confidence, _first(asked.min_confidence, min_confidence))
    return Terms(tier, check, context_tokens, min_confidence)


def _lesser(one: Tier, other: Tier) -> Tier:
    return one if _TIERS.index(one) <= _TIERS.index(other) else other


def _stricter(one: Checking, other: Checking) -> Checking:
    return one if _CHECKS.index(one) >= _CHECKS.index(other) else other


N = TypeVar("N", int, float)


def _first(value: N | None, default: N) -> N:
    return default if value is None else value
