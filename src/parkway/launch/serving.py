"""The gateway on its sockets: it serves, it drains when it is told to stop, and it lets go when another takes over."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Sequence
from types import FrameType

import uvicorn

from parkway.gateway.config import InForce
from parkway.gateway.door import Door
from parkway.gateway.protocol import bounded
from parkway.gateway.readiness import Readiness
from parkway.launch.gateways import HAND_OVER
from parkway.launch.listener import reachable

_POLL_S = 0.1


async def listen(door: Door, readiness: Readiness, listeners: Sequence[socket.socket]) -> None:
    """Serves what is behind `door` until SIGTERM or SIGINT, or until another has taken over and all have left."""
    server = _Server(
        uvicorn.Config(
            door,
            loop="none",
            http=bounded(door),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,  # nothing here depends on the client's address
            timeout_keep_alive=75,  # longer than the idle time of the proxies that stand in front of gateways
        ),
        readiness,
        door.config,
    )
    asyncio.get_running_loop().add_signal_handler(HAND_OVER, server.hand_over)
    await server.serve(sockets=list(listeners))


class _Server(uvicorn.Server):
    """uvicorn, which on the first signal refuses what is new and finishes what runs; on the second, stops at once."""

    def __init__(self, config: uvicorn.Config, readiness: Readiness, in_force: InForce) -> None:
        super().__init__(config)
        self._readiness = readiness
        self._in_force = in_force
        self._handing_over = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - uvicorn's signature
        # uvicorn's own version raises the signal again after the drain, which would end the process before the
        # request log is flushed.
        self.force_exit = self.should_exit and not self._handing_over
        self.should_exit = True
        self._handing_over = False
        self._readiness.draining = True

    def hand_over(self) -> None:
        """Another process serves our sockets from now on."""
        if not self.should_exit:
            self._handing_over = self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        host, port = reachable(sockets[0]) if sockets else ("", 0)
        print(f"ready http://[{host}]:{port}" if ":" in host else f"ready http://{host}:{port}", flush=True)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.config.timeout_graceful_shutdown = max(1, round(self._in_force.gateway.drain_s))
        if self._handing_over:
            await self._let_go(sockets or [])
        await super().shutdown(sockets)

    async def _let_go(self, sockets: Sequence[socket.socket]) -> None:
        """Accepts no more, and has each client open its next connection elsewhere.

        To close a connection that is idle would lose the request that is under way on it. So each is kept until its
        next answer, which says `connection: close`; one on which nothing comes for so long is closed in the end.
        """
        for server in self.servers:
            server.close()
        for each in sockets:
            each.close()  # our copy; the supervisor and our successor have theirs
        closing = (b"connection", b"close")
        self.config.encoded_headers.append(closing)
        # The answers that have begun have this very list.
        self.server_state.default_headers.append(closing)
        until = time.monotonic() + self._in_force.gateway.drain_s
        ticks = 0
        while self._handing_over and self.server_state.connections and time.monotonic() < until:
            await asyncio.sleep(_POLL_S)
            ticks += 1
            await self.on_tick(ticks)  # which keeps the header `date` true
        if self._handing_over:
            self.config.timeout_graceful_shutdown = 1
