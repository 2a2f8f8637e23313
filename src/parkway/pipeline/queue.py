"""Whose turn it is."""

from __future__ import annotations

from parkway.core.errors import ParkwayError, RelayedError
from parkway.pipeline.exchange import Exchange
from parkway.pipeline.parts import Parts
from parkway.pipeline.shaping import answer_size, check_prompt
from parkway.router.admission.turn import RUNNING

_PROMPT_TOKEN_COST = 1 / 8
"""Of a token of an answer, which takes a pass of the model for itself; those of a prompt are read many at once."""

_MARGIN = 1.5
"""How much of its time-out a request must have left when its turn comes, in mean times of an answer. One that is begun
and not finished in time has taken a place from one that would have been."""

_TOO_MANY = (429, 503)


async def queue(exchange: Exchange, parts: Parts) -> Exchange:
    """Gives the request the shape that its key's tier allows, and waits until the model can take it.

    Raises:
        InvalidRequest: A class that does not exist is asked for.
        PromptTooLong: The prompt is longer than the tier allows.
        Overloaded: It would have to wait longer than it may, or there is no room to wait; see `Gate.enter`.
    """
    shaping = parts.shaping
    standing = shaping.standing(exchange.known_caller.tier)
    tier, lane = standing.tier, shaping.lane(exchange, standing)
    tokens = exchange.prompt_tokens
    check_prompt(tokens, tier)
    most, choices = answer_size(exchange)
    cap = tier.max_output_tokens
    if cap is not None and (most is None or most > cap):
        exchange.max_output_tokens = most = cap
        exchange.answer_headers.append((b"x-parkway-max-tokens", str(cap).encode()))
    if not shaping.queues:
        return exchange
    gate = parts.gates.find(exchange.known_request.model, tokens)
    if gate is None:
        return exchange
    mean = gate.mean_answer_tokens
    answer = (mean if most is None or most > mean else most) * choices
    deadline = min(exchange.deadline - _MARGIN * gate.mean_s, gate.clock() + shaping.max_wait_s[lane])
    exchange.turn = turn = gate.enter(
        exchange.known_caller.key_id,
        lane,
        cost=tokens * _PROMPT_TOKEN_COST + answer,
        tokens=tokens + int(answer),
        deadline=deadline,
        weight=tier.weight,
        max_key_requests=tier.max_queue_requests,
    )
    if turn.stage is not RUNNING:
        await turn.come()
    exchange.mark("queue")
    return exchange


def leave(exchange: Exchange) -> None:
    """Gives the request's place at the model back, or in the queue. Never raises; again changes nothing."""
    turn = exchange.turn
    if turn is None:
        return
    usage, error = exchange.transcript.usage, exchange.error
    ended_well = error is None and not exchange.client.left
    if usage is None:
        turn.leave(ended_well=ended_well, refused=_has_too_many(error))
        return
    answer = usage.completion_tokens
    if answer > 0:
        turn.gate.answered(answer / answer_size(exchange)[1])
    turn.leave(cost=max(1.0, usage.prompt_tokens * _PROMPT_TOKEN_COST + answer), ended_well=ended_well)


def _has_too_many(error: ParkwayError | None) -> bool:
    """Whether an endpoint said that it has more requests than it can work on."""
    return isinstance(error, RelayedError) and error.status in _TOO_MANY
