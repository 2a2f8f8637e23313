"""How many tokens a request may take, guessed before anybody has counted them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from parkway.core.chat import ChatRequest, Message
from parkway.core.completions import CompletionRequest
from parkway.core.embeddings import EmbeddingRequest
from parkway.core.rerank import RerankRequest

BYTES_A_TOKEN = 4
"""Of English text and common tokenisers; what was really used is put right afterwards."""

TOKENS_A_PICTURE = 1000
"""A picture or a recording in a message, whatever its size: base64 says nothing about tokens."""

MOST_TOKENS = 2**40
"""Clients may ask for answers of any length; what is beyond this is no number that anybody counts in."""

_WALK_FROM_BYTES = 16_384
"""In smaller bodies a picture cannot be large enough to matter."""


class Estimate(NamedTuple):
    """The most tokens that a request is expected to take."""

    prompt_tokens: int
    completion_tokens: int = 0


def estimate(
    request: ChatRequest | CompletionRequest | EmbeddingRequest | RerankRequest,
    body_bytes: int,
    assumed_output: int,
    most_output: int | None = None,
) -> Estimate:
    """The prompt from the size of the body, the answer from what the client allows, times the choices.

    Args:
        assumed_output: Tokens of an answer for which the client sets no limit.
        most_output: Tokens that no answer is longer than, whatever the client allows.
    """
    prompt = -(-body_bytes // BYTES_A_TOKEN)
    if isinstance(request, ChatRequest):
        limit, choices = request.answer_limit, request.n or 1
        if body_bytes >= _WALK_FROM_BYTES:
            prompt = _walked(request, prompt)
    elif isinstance(request, CompletionRequest):
        limit, choices = request.max_tokens, max(request.n or 1, request.best_of or 1)
        # Each prompt of a list is answered.
        if isinstance(request.prompt, list) and request.prompt and not isinstance(request.prompt[0], int):
            choices *= len(request.prompt)
    else:
        return Estimate(prompt)
    if limit is None:
        limit = assumed_output
    if most_output is not None and limit > most_output:
        limit = most_output
    return Estimate(prompt, min(MOST_TOKENS, choices * limit))


def tokens_of(messages: Sequence[Message]) -> int:
    """The estimate for messages by themselves."""
    tokens = 0
    for message in messages:
        content = message.content
        size = 16 + (len(str(message.tool_calls)) if message.tool_calls else 0)
        if isinstance(content, str):
            size += len(content) if content.isascii() else len(content.encode())
        elif content is not None:
            for part in content:
                text = part.get("text")
                if isinstance(text, str):
                    size += len(text.encode())
                else:
                    tokens += TOKENS_A_PICTURE
        tokens += -(-size // BYTES_A_TOKEN)
    return tokens


def _walked(request: ChatRequest, by_size: int) -> int:
    """The prompt of a large body, in which there may be pictures."""
    if all(not isinstance(message.content, list) for message in request.messages):
        return by_size
    tools = len(str(request.tools)) if request.tools else 0
    return tokens_of(request.messages) + tools // BYTES_A_TOKEN
