"""A turn: a request's place, in the queue of a model first where it has to wait, then among those that are answered."""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Sequence
from typing import TYPE_CHECKING

from parkway.core.errors import ParkwayError
from parkway.router.admission.fair_queue import Entry

if TYPE_CHECKING:
    from parkway.router.admission.gate import Gate


class Stage(enum.Enum):
    """Where a turn stands."""

    WAITING = enum.auto()
    RUNNING = enum.auto()
    OVER = enum.auto()


WAITING, RUNNING, OVER = Stage
"""For comparisons in every request: to find a member in its class takes five times as long as to compare it."""


class Turn(Entry, kw_only=True, eq=False):
    """One request's place at a gate. Whoever got it calls `leave`, however the request ends.

    Attributes:
        entered: When it came.
        deadline: When it has waited long enough.
        classes: The names of the gate's classes, among which `lane` is the index of its own.
        begun: When its turn came.
        error: Why it was taken out of the queue.
    """

    gate: Gate
    entered: float
    deadline: float
    classes: Sequence[str]
    stage: Stage = WAITING
    begun: float = 0.0
    error: ParkwayError | None = None
    _settled: asyncio.Future[None] | None = None

    @property
    def waited_s(self) -> float:
        """How long it waited for its turn, or until it was taken out."""
        return max(0.0, self.begun - self.entered)

    async def come(self) -> None:
        """Returns when the turn has come.

        Raises:
            Overloaded, Draining: It was taken out of the queue.
        """
        if self.stage is WAITING:
            loop = asyncio.get_running_loop()
            self._settled = loop.create_future()
            timer = loop.call_later(max(0.0, self.deadline - self.gate.clock()), self.gate.expire, self)
            try:
                await self._settled
            finally:
                timer.cancel()
        if self.error is not None:
            raise self.error

    def settle(self) -> None:
        """Wakes who waits for it."""
        if self._settled is not None and not self._settled.done():
            self._settled.set_result(None)

    def leave(self, *, cost: float | None = None, ended_well: bool = True, refused: bool = False) -> None:
        """Gives the place back; again changes nothing.

        Args:
            cost: What the request really took, where that is known.
            ended_well: Whether its time says something about the endpoints.
            refused: Whether an endpoint refused it because it had too many.
        """
        self.gate.leave(self, cost=cost, ended_well=ended_well, refused=refused)
