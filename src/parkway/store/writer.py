"""Writing beside the request path: what waits in memory goes into the store, batch by batch."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from sqlalchemy.exc import SQLAlchemyError

from parkway.core.errors import StoreUnavailable
from parkway.core.tasks import Tasks

log = logging.getLogger(__name__)

_MAX_BACK_OFF_S = 10.0


class Writer:
    """Writes what waits in a queue every `interval_s`; while the store is away, waits longer and longer between tries.

    Whose queue it is decides how many may wait in it, and what becomes of the next. What comes while it writes is
    written in the next round: under load there are a few large transactions a second, and not as many as can be.

    Args:
        name: Of the log that is written, for people: `audit log`.
        what: What it consists of: `entries`.
        waiting: How many wait now.
        write_batch: Writes what has waited longest and takes it out of the queue; returns how many those were. If it
            raises what a store raises, all are in the queue still.
    """

    def __init__(
        self,
        name: str,
        what: str,
        interval_s: float,
        waiting: Callable[[], int],
        write_batch: Callable[[], Awaitable[int]],
    ) -> None:
        self._name = name
        self._what = what
        self.interval_s = interval_s
        self._waiting = waiting
        self._write_batch = write_batch
        self._task: asyncio.Task[None] | None = None

    def start(self, tasks: Tasks) -> None:
        self._task = tasks.every(lambda: self.interval_s, self._round, name=self._name.replace(" ", "-"))

    async def close(self, timeout_s: float) -> bool:
        """Stops after it has written what is left, for which it has `timeout_s`; returns whether that was enough."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        try:
            async with asyncio.timeout(timeout_s):
                while self._waiting():
                    await self._round()
        except TimeoutError:
            return False
        return True

    async def _round(self) -> None:
        """Writes what waits now."""
        left = self._waiting()
        failures, back_off_s = 0, self.interval_s
        while left > 0:
            try:
                left -= await self._write_batch()
            except (StoreUnavailable, SQLAlchemyError) as error:
                failures += 1
                if failures == 1:
                    log.warning(
                        "%s: the store is away (%s); %s wait and are tried again", self._name, error, self._what
                    )
                await asyncio.sleep(back_off_s)
                back_off_s = min(_MAX_BACK_OFF_S, back_off_s * 2)
                continue
            if failures:
                log.warning("%s: the store is back after %d failed attempts", self._name, failures)
            failures, back_off_s = 0, self.interval_s
