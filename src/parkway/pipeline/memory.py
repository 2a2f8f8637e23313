"""What was said before goes to the model, what is said now is kept: conversations, and chains of responses."""

from __future__ import annotations

from parkway.aggregate.dialects.dialect import Dialect
from parkway.core.chat import ChatRequest, Message
from parkway.pipeline.exchange import Exchange
from parkway.pipeline.parts import Parts
from parkway.pipeline.reservation import reserve_history

_INSTRUCTIONS = ("system", "developer")


async def remember(exchange: Exchange, parts: Parts) -> Exchange:
    """Fetches the history of the conversation, or of the response, that the request goes on from, if it names one.

    Raises:
        InvalidRequest: The id is not one, or the new messages could never be kept.
        PreviousResponseNotFound: There is no such response.
        RateLimited, BudgetExceeded: The prompt is too much with its history.
    """
    if exchange.dialect is not None and exchange.dialect.previous_id is not None:
        key_id, previous_id = exchange.known_caller.key_id, exchange.dialect.previous_id
        exchange.history = await parts.responses.history(key_id, previous_id)
    request = exchange.known_request
    if isinstance(request, ChatRequest) and request.conversation is not None:
        parts.conversations.check(request.messages)
        exchange.history = await parts.conversations.history(exchange.known_caller.key_id, request.conversation)
        exchange.mark("remember")
    await reserve_history(exchange, parts)
    return exchange


async def aggregate(exchange: Exchange, parts: Parts) -> Exchange:
    """Keeps the new turns and the answer, if the request wants that and the answer is whole."""
    if exchange.dialect is not None and exchange.error is None:
        await _keep_response(exchange, exchange.dialect, parts)
    request = exchange.known_request
    if exchange.conversation_id is None or not isinstance(request, ChatRequest) or exchange.error is not None:
        return exchange
    known = instructions_in_force(exchange.history)
    turns = [message for message in request.messages if message not in known]
    turns.append(exchange.transcript.message())
    await parts.conversations.append(exchange.known_caller.key_id, exchange.conversation_id, turns, exchange.request_id)
    return exchange


async def _keep_response(exchange: Exchange, dialect: Dialect, parts: Parts) -> None:
    """Keeps the answer where its protocol has that. Its end, which is held until now, is read first."""
    dialect.settle(exchange.closing)
    kept = dialect.kept()
    if kept is not None and not await parts.responses.keep(exchange.known_caller.key_id, kept):
        dialect.not_kept()


def said_in(exchange: Exchange, request: ChatRequest) -> list[Message]:
    """The whole conversation that the last message of the request stands in."""
    if request.conversation is not None:
        return whole_conversation(exchange.history, request.messages)
    return continued(exchange.history, request.messages) if exchange.history else request.messages


def continued(history: list[Message], messages: list[Message]) -> list[Message]:
    """History and new messages of a chain of responses: the new instructions first, all others where they were."""
    first = next((index for index, each in enumerate(messages) if each.role not in _INSTRUCTIONS), len(messages))
    return [*messages[:first], *history, *messages[first:]]


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
