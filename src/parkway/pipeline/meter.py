"""The meter of a stream: an answer that nobody has bounded goes on for as long as its budgets can pay for it."""

from __future__ import annotations

import sys

from parkway.pipeline.exchange import Exchange
from parkway.pipeline.parts import Parts
from parkway.pipeline.reservation import lease_s, seen_tokens
from parkway.pipeline.shaping import answer_size
from parkway.policy.limiter import Limiter, Reservation


class Meter:
    """Holds a stream to what is reserved for it, and has that grow with it."""

    def __init__(self, exchange: Exchange, reservation: Reservation, limiter: Limiter) -> None:
        self._exchange = exchange
        self._reservation = reservation
        self._limiter = limiter
        self._paid = reservation.expected.completion_tokens

    @property
    def over(self) -> bool:
        """Whether what was seen of the answer is more than is reserved."""
        return seen_tokens(self._exchange.transcript) > self._paid

    async def pay(self) -> None:
        """Reserves more, so that what was seen of the answer is covered.

        Raises:
            BudgetExceeded: A budget has no more. What was reserved stays so.
        """
        exchange, reservation = self._exchange, self._reservation
        await self._limiter.grow(reservation, seen_tokens(exchange.transcript), lease_s(exchange))
        # Who had asked may have left an answer that others read on: then it is settled, and there is nobody to pay.
        self._paid = sys.maxsize if reservation.settled else reservation.expected.completion_tokens


def meter_of(exchange: Exchange, parts: Parts) -> Meter | None:
    """The meter for an answer; None where it cannot become longer than is reserved, or no budget minds."""
    reservation = exchange.reservation
    if reservation is None or not reservation.hard:
        return None
    most, choices = answer_size(exchange)
    if exchange.max_output_tokens is not None:
        most = exchange.max_output_tokens
    if most is not None and most * choices <= reservation.expected.completion_tokens:
        return None
    return Meter(exchange, reservation, parts.limiter)
