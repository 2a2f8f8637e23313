"""`/v1/completions`: request, answer and stream chunk in OpenAI's form."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from parkway.core.chat import (
    Count,
    LogitBias,
    Penalty,
    Priority,
    Probability,
    RepetitionPenalty,
    Seed,
    StreamOptions,
    StructuredOutputs,
    Temperature,
)
from parkway.core.prompts import Prompts
from parkway.core.usage import Usage


class CompletionRequest(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A text completion. `prompt` is a string, several strings, token ids, or several lists of token ids."""

    model: str
    prompt: Prompts | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int, Meta(ge=0)] | None = None
    temperature: Temperature | None = None
    top_p: Probability | None = None
    top_k: Annotated[int, Meta(ge=-1)] | None = None
    seed: Seed | None = None
    stop: str | list[str] | None = None
    n: Count | None = None
    best_of: Count | None = None
    logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    echo: bool | None = None
    suffix: str | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: LogitBias | None = None
    repetition_penalty: RepetitionPenalty | None = None
    min_p: Probability | None = None
    priority: Priority | None = None
    service_tier: str | None = None
    structured_outputs: StructuredOutputs | None = None
    user: str | None = None


class CompletionLogprobs(msgspec.Struct, kw_only=True):
    """Parallel lists, one entry a token; `text_offset` counts characters from the start of the text."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None] | None
    text_offset: list[int]


class CompletionChoice(msgspec.Struct, kw_only=True):
    index: int
    text: str
    finish_reason: Literal["stop", "length", "content_filter"] | None
    logprobs: CompletionLogprobs | None = None


class Completion(msgspec.Struct, kw_only=True):
    """The whole answer, or one event of a streamed one. `created` is in seconds since 1970."""

    id: str
    created: int
    model: str
    choices: list[CompletionChoice]
    object: Literal["text_completion"] = "text_completion"
    system_fingerprint: str | None = None
    usage: Usage | UnsetType | None = UNSET
