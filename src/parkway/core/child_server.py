"""A server in a process that a supervisor started: uvicorn, which says when it is ready and leaves exit codes to us."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable, Generator
from contextlib import contextmanager

import uvicorn


class ChildServer(uvicorn.Server):
    """Drains on SIGTERM and SIGINT.

    Args:
        ready: Called once it accepts connections.

    Attributes:
        stopping: Set once it was told to stop.
    """

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._say_ready = ready
        self.stopping = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._say_ready()

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """uvicorn's own version raises the signal again afterwards, as if draining had failed."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    def _stop(self) -> None:
        self.should_exit = True
        self.stopping.set()
