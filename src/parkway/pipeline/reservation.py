"""How much: what a request is expected to use is taken before it is sent, and put right when it has ended."""

from __future__ import annotations

import time

from parkway.aggregate.transcript import Transcript
from parkway.core.errors import BudgetExceeded, DeadlineExceeded, Draining
from parkway.pipeline.exchange import Exchange
from parkway.pipeline.parts import Parts
from parkway.policy.estimate import BYTES_A_TOKEN, Estimate, estimate, tokens_of
from parkway.policy.limiter import Taken
from parkway.policy.rulebook import Party

MAX_NAME_CHARS = 128
_LEASE_MARGIN_S = 60.0  # a request may be told of its deadline a little after it


async def reserve(exchange: Exchange, parts: Parts) -> Exchange:
    """Takes the request, and the tokens and the money that it may need, from every limit and budget that applies.

    Raises:
        RateLimited, BudgetExceeded: Not now; nothing was taken.
        InvalidRequest: It is too much for a limit at any time.
    """
    caller, request = exchange.known_caller, exchange.known_request
    model = request.model[:MAX_NAME_CHARS]
    party = Party(caller.key_id, caller.user, caller.team, model, exchange.agent, exchange.task, caller.name)
    limiter, tier = parts.limiter, parts.shaping.standing(caller.tier).tier
    expected = estimate(request, len(exchange.body), limiter.config.assumed_output_tokens, tier.max_output_tokens)
    exchange.prompt_tokens = expected.prompt_tokens
    exchange.reservation = reservation = await limiter.reserve(party, expected, lease_s(exchange))
    exchange.answer_headers += reservation.headers()
    exchange.mark("reserve")
    return exchange


async def reserve_history(exchange: Exchange, parts: Parts) -> None:
    """Takes what the history of the conversation adds to the prompt. Raises like `reserve`."""
    if exchange.history and exchange.reservation is not None:
        tokens = tokens_of(exchange.history)
        exchange.prompt_tokens += tokens
        await parts.limiter.extend(exchange.reservation, tokens, lease_s(exchange))


def settle(exchange: Exchange, parts: Parts) -> None:
    """Charges what was used and gives the rest back, however the request ended. Never waits."""
    if exchange.reservation is None:
        return
    model = None if exchange.reply is None else exchange.reply.endpoint.model
    exchange.cost_micro_usd = parts.limiter.settle(exchange.reservation, used(exchange), model)


def used(exchange: Exchange) -> Taken:
    """What the request has used.

    As the endpoint counted it; where it did not, because the answer broke off or was left or because it never does,
    the prompt as it was estimated and what was seen of the answer. A request that failed before anything of its answer
    was seen has used nothing, and one that a budget has ended, what that could pay: nothing else was sent.
    """
    transcript = exchange.transcript
    usage = transcript.usage
    if usage is not None:
        details = usage.prompt_tokens_details
        return Taken(usage.prompt_tokens, usage.completion_tokens, details.cached_tokens if details else 0)
    expected = exchange.reservation.expected if exchange.reservation is not None else Estimate(0)
    seen = seen_tokens(transcript)
    # Whoever leaves, or sets a deadline that is too short, has had an endpoint work for it all the same.
    failed = exchange.error is not None and not isinstance(exchange.error, DeadlineExceeded | Draining)
    if not exchange.asked or (failed and not seen):
        return Taken(0, 0)
    if isinstance(exchange.error, BudgetExceeded):
        seen = min(seen, expected.completion_tokens)
    return Taken(expected.prompt_tokens, seen)


def seen_tokens(transcript: Transcript) -> int:
    """How many tokens were seen of an answer, as far as one can tell without the endpoint's own count."""
    return max(transcript.pieces, transcript.seen_chars // BYTES_A_TOKEN)


def lease_s(exchange: Exchange) -> float:
    """The longest that the request can take from now on."""
    return exchange.deadline - time.monotonic() + _LEASE_MARGIN_S
