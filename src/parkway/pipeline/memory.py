"""Conversations: what was said before goes to the model, what is said now is kept."""

from __future__ import annotations

from parkway.core.chat import ChatRequest, Message
from parkway.pipeline.exchange import Exchange
from parkway.pipeline.parts import Parts

_INSTRUCTIONS = ("system", "developer")


async def remember(exchange: Exchange, parts: Parts) -> Exchange:
    """Fetches the history of the conversation that the request names, if it names one.

    Raises:
        InvalidRequest: The id is not one, or the new messages could never be kept.
    """
    request = exchange.known_request
    if isinstance(request, ChatRequest) and request.conversation is not None:
        parts.conversations.check(request.messages)
        exchange.history = await parts.conversations.history(exchange.known_caller.key_id, request.conversation)
    return exchange


async def aggregate(exchange: Exchange, parts: Parts) -> Exchange:
    """Keeps the new turns and the answer, if the request names a conversation and the answer is whole."""
    request = exchange.known_request
    if exchange.conversation_id is None or not isinstance(request, ChatRequest) or exchange.error is not None:
        return exchange
    known = instructions_in_force(exchange.history)
    turns = [message for message in request.messages if message not in known]
    turns.append(exchange.transcript.message())
    await parts.conversations.append(exchange.known_caller.key_id, exchange.conversation_id, turns, exchange.request_id)
    return exchange


def whole_conversation(history: list[Message], messages: list[Message]) -> list[Message]:
    """History and new messages as the model gets them.

    Instructions (system, developer) stand first; new ones replace those of earlier turns.
    """
    given = [message for message in messages if message.role in _INSTRUCTIONS]
    turns = [message for message in (*history, *messages) if message.role not in _INSTRUCTIONS]
    return [*(given or instructions_in_force(history)), *turns]


def instructions_in_force(history: list[Message]) -> list[Message]:
    """The instructions that were given last, and together."""
    found: list[Message] = []
    for message, before in zip(history, [None, *history], strict=False):
        if message.role in _INSTRUCTIONS:
            fresh = before is None or before.role not in _INSTRUCTIONS
            found = [message] if fresh else [*found, message]
    return found


def without_oldest_half(history: list[Message]) -> list[Message]:
    """A shorter history for a model whose context is too small: instructions stay, older turns go first.

    What stays begins with a turn of the user, so that no answer stands without its question.
    """
    kept = instructions_in_force(history)
    turns = [message for message in history if message.role not in _INSTRUCTIONS]
    turns = turns[(len(turns) + 1) // 2 :]
    while turns and turns[0].role != "user":
        turns = turns[1:]
    return [*kept, *turns] if turns else []
