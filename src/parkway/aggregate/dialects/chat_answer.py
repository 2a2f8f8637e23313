"""A chat answer, whole or in chunks, as dialects read it: as far as they can tell it in their own words."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

_Count = Annotated[int, Meta(ge=0, le=2**31 - 1)]


class PromptDetails(msgspec.Struct, gc=False):
    cached_tokens: _Count | None = None


class AnswerDetails(msgspec.Struct, gc=False):
    reasoning_tokens: _Count | None = None


class ChatUsage(msgspec.Struct, gc=False):
    prompt_tokens: _Count | None = None
    completion_tokens: _Count | None = None
    prompt_tokens_details: PromptDetails | None = None
    completion_tokens_details: AnswerDetails | None = None

    @property
    def cached_tokens(self) -> int:
        """Tokens of the prompt that were found in a cache, never more than the prompt has."""
        details = self.prompt_tokens_details
        return min(details.cached_tokens or 0 if details else 0, self.prompt_tokens or 0)

    @property
    def reasoning_tokens(self) -> int:
        return self.completion_tokens_details.reasoning_tokens or 0 if self.completion_tokens_details else 0


class CalledFunction(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: str | None = None


class CallPiece(msgspec.Struct, gc=False):
    """A call of a tool, or the part of one that a chunk brings."""

    index: int | None = None
    id: str | None = None
    function: CalledFunction | None = None


class Words(msgspec.Struct, gc=False):
    """A message, or the part of one that a chunk brings. Reasoning goes by two names among servers."""

    content: str | None = None
    tool_calls: list[CallPiece] | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


class Logprobs(msgspec.Struct, gc=False):
    content: list[Any] | None = None


class ChatChoice(msgspec.Struct, gc=False):
    """`stop_reason` is the stop string that ended the answer, from servers that say so."""

    index: int = 0
    delta: Words | None = None
    message: Words | None = None
    finish_reason: str | None = None
    stop_reason: str | int | None = None
    logprobs: Logprobs | None = None


class ChatAnswer(msgspec.Struct, gc=False):
    choices: list[ChatChoice] | None = None
    usage: ChatUsage | None = None
    error: Any = None
    parkway: Any = None


_decode = msgspec.json.Decoder(ChatAnswer).decode


def read(data: bytes) -> ChatAnswer | None:
    """A chat answer or one chunk of it; None where it cannot be read."""
    try:
        return _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
