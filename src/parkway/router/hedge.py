"""Hedging: a second endpoint is asked when the first is late, and the first answer wins.

Source: Dean, Barroso, "The Tail at Scale", CACM 56(2), 2013.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from parkway.core.errors import EndpointFailed
from parkway.core.tasks import Tasks
from parkway.router.reply import Reply
from parkway.router.sender import Unanswered

Attempt = Callable[[], Awaitable[Reply]]
_Outcome = Reply | Unanswered | EndpointFailed


async def race(first: Attempt, second: Callable[[], Attempt | None], after_s: float, tasks: Tasks) -> Reply:
    """The first good answer. The other attempt is cancelled at once, which gives its place back.

    Args:
        second: Asked when `first` has had no answer for `after_s`; None where there is no second.

    Raises:
        Unanswered, EndpointFailed: Of the last attempt, where none had an answer.
    """
    racing = [tasks.start(_outcome(first), name="attempt")]
    kept: _Outcome | None = None
    winner: Reply | None = None
    try:
        waiting = set(racing)
        done, _ = await asyncio.wait(waiting, timeout=after_s)
        if not done and (attempt := second()) is not None:
            racing.append(tasks.start(_outcome(attempt), name="hedge"))
            waiting.add(racing[-1])
        while waiting:
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                outcome = task.result()
                if isinstance(outcome, Reply) and outcome.good:
                    winner = outcome
                    return outcome
                if kept is None or isinstance(outcome, Reply):
                    kept = outcome
        if isinstance(kept, Reply):
            winner = kept
            return kept
        raise kept or RuntimeError("no attempt was made")
    finally:
        for task in racing:
            _end(task, winner)


async def _outcome(attempt: Attempt) -> _Outcome:
    """The attempt's end as a value: one that fails while another goes on is no news."""
    try:
        return await attempt()
    except (Unanswered, EndpointFailed) as error:
        return error


def _end(task: asyncio.Task[_Outcome], winner: Reply | None) -> None:
    """Cancels an attempt that nobody waits for any more; closes the answer of one that was just finished."""

    def close(ended: asyncio.Task[_Outcome]) -> None:
        if not ended.cancelled() and ended.exception() is None:
            outcome = ended.result()
            if isinstance(outcome, Reply) and outcome is not winner:
                outcome.close()

    if task.done():
        close(task)
    else:
        task.add_done_callback(close)
        task.cancel()
