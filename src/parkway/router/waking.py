"""Waking models that sleep: once, however many requests wait for one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

from parkway.core.errors import NoEndpoint
from parkway.core.tasks import Tasks
from parkway.router.endpoint import Endpoint
from parkway.router.view import View

Wake = Callable[[str], Awaitable[None]]
"""Returns once the model is loaded; the view may show it a little later. Raises `NoEndpoint` if it cannot be."""

RETRY_AFTER_S = 5.0

# How long the view may take to show a model that was woken. Beyond it the model is asked for again: it may have been
# unloaded before anybody saw it.
_SEEN_WITHIN_S = 5.0

# How long a supervisor takes at most to tell every gateway that an engine is gone.
_NEWS_S = 1.0


@dataclass(slots=True)
class _Attempt:
    """One attempt to wake a model. It ends with None or with why it failed, and lives as long as somebody waits."""

    task: asyncio.Task[NoEndpoint | None]
    waiting: int = 0


class Waking:
    """The models that are being woken now.

    Args:
        view: Shows when a model has become ready.
        wake: Called once for all requests that wait for a model at the same time; cancelled when all have left.
    """

    def __init__(self, view: View, wake: Wake, tasks: Tasks) -> None:
        self._view = view
        self._wake = wake
        self._tasks = tasks
        self._attempts: dict[str, _Attempt] = {}
        self._changed = asyncio.Event()
        view.subscribe(self._notice)

    async def wake(self, model: str, deadline: float) -> None:
        """Waits until the view no longer shows `model` asleep; the caller looks what it shows instead.

        Args:
            deadline: In seconds of `time.monotonic`.

        Raises:
            NoEndpoint: It cannot be woken, or is not awake at the deadline.
        """
        attempt = self._attempts.get(model)
        if attempt is None or attempt.task.done():
            attempt = _Attempt(self._tasks.start(self._try(model), name=f"wake {model}"))
            self._attempts[model] = attempt
        attempt.waiting += 1
        try:
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                error = await asyncio.shield(attempt.task)
        except TimeoutError:
            raise NoEndpoint(
                f"model {model!r} is still being loaded at the request's deadline; try again",
                retry_after_s=RETRY_AFTER_S,
            ) from None
        finally:
            attempt.waiting -= 1
            if attempt.waiting == 0:
                attempt.task.cancel()
                if self._attempts.get(model) is attempt:
                    del self._attempts[model]
        if error is not None:
            # A fresh one each time: an exception that several requests raise would collect all their tracebacks.
            raise NoEndpoint(error.message, retry_after_s=error.retry_after_s)

    async def hears_of(self, endpoint: Endpoint, deadline: float) -> bool:
        """Whether the view shows, soon and before the deadline, that `endpoint` is not as it was."""
        with suppress(TimeoutError):
            async with asyncio.timeout(min(_NEWS_S, max(0.0, deadline - time.monotonic()))):
                while endpoint in self._view.endpoints(endpoint.model):
                    await self._changed.wait()
        return endpoint not in self._view.endpoints(endpoint.model)

    async def _try(self, model: str) -> NoEndpoint | None:
        """Wakes `model` and waits until the view has it; the error where that fails."""
        try:
            await self._wake(model)
        except NoEndpoint as error:
            return error
        with suppress(TimeoutError):
            async with asyncio.timeout(_SEEN_WITHIN_S):
                while self._sleeps(model):
                    await self._changed.wait()
        return None

    def _sleeps(self, model: str) -> bool:
        return any(endpoint.state == "asleep" for endpoint in self._view.endpoints(model))

    def _notice(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
