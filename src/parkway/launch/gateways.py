"""The gateway processes of one Parkway: several on one port, and replaced without a refused request.

Each has a listening socket of its own on the port (`SO_REUSEPORT`): the kernel spreads connections evenly over them,
where processes that share one socket race for it and a burst ends at whoever wakes first. The supervisor holds the
sockets, so that none closes with a process: what waits in one is answered by the next process that inherits it.
"""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from parkway.core.errors import StartupError
from parkway.core.tasks import Tasks
from parkway.launch.child import Child, Say
from parkway.launch.family import Family
from parkway.launch.listener import bind
from parkway.launch.liveness import Address, watch
from parkway.launch.probe import Readiness, readiness
from parkway.launch.settings import Settings

HAND_OVER = signal.SIGUSR1
"""Tells a gateway that another serves its socket: it accepts no more and lets its clients go, request by request."""

_STOP_GRACE_S = 5.0
_RELOAD_S = 60.0


@dataclass(slots=True)
class Serving:
    """One process, and the address at which it alone answers."""

    child: Child
    private: socket.socket
    watching: asyncio.Task[None] | None = None

    @property
    def address(self) -> Address:
        host, port = self.private.getsockname()[:2]
        return str(host), int(port)


@dataclass(slots=True)
class Slot:
    """One of the workers: its socket stays, its process changes."""

    number: int
    listener: socket.socket
    serving: Serving


class Gateways:
    """Starts, watches, replaces and stops the gateways.

    Args:
        listeners: The sockets of the port, one for each worker.
        options: What else `parkway gateway` is told.
    """

    def __init__(
        self, settings: Settings, family: Family, listeners: Sequence[socket.socket], say: Say, *options: str
    ) -> None:
        self._settings = settings
        self._family = family
        self._say = say
        self._options = options
        self._single = len(listeners) == 1
        self._tasks = Tasks("gateways")
        self.drain_s = lambda: settings.gateway.drain_s
        """How long a gateway that was replaced may finish what it has."""
        self._reloading = asyncio.Lock()
        self._stopping = False
        self._retiring: list[Child] = []
        self._slots = [Slot(number, each, self._new(number, each)) for number, each in enumerate(listeners)]

    @property
    def children(self) -> list[Child]:
        """The processes that serve now, one for each worker, and those that finish what they have."""
        return [*(slot.serving.child for slot in self._slots), *self._retiring]

    def start(self, tasks: Tasks) -> None:
        """Starts all of them."""
        self._tasks = tasks
        for slot in self._slots:
            self._run(slot.serving)

    def check(self) -> None:
        """Sees that they can start.

        Raises:
            StartupError: One cannot.
        """
        for child in (slot.serving.child for slot in self._slots):
            if child.state == "given up":
                raise StartupError(f"the gateway cannot start: {child.reason}")

    async def readiness(self) -> Readiness | None:
        """What all of them say; None while one says nothing."""
        answers = await asyncio.gather(*(readiness(*slot.serving.address) for slot in self._slots))
        found = [answer for answer in answers if answer is not None]
        if len(found) < len(answers):
            return None
        return max(found, key=lambda answer: len(answer.reasons))

    async def reload(self) -> None:
        """Replaces them, one worker after the other: a new process serves before the old one lets go.

        Raises:
            StartupError: A new process does not become ready; the old one stays.
        """
        async with self._reloading:
            for slot in self._slots:
                await self._replace(slot)
            self._say("the gateway is replaced; the old one finishes what it has")

    async def stop(self, grace_s: float) -> None:
        """Ends all of them: no new requests, running ones have `grace_s` seconds."""
        self._stopping = True
        await asyncio.gather(*(child.stop(grace_s) for child in self.children))

    async def _replace(self, slot: Slot) -> None:
        fresh = self._new(slot.number, slot.listener)
        self._run(fresh)
        with suppress(TimeoutError):
            async with asyncio.timeout(min(_RELOAD_S, self._settings.start_timeout_s)):
                await fresh.child.settled.wait()
        if fresh.child.state != "ready" or self._stopping:
            reason = fresh.child.reason or f"it is not ready; its log is {fresh.child.log.path}"
            await self._end(fresh, signal.SIGTERM, 1.0)
            raise StartupError(f"the new gateway cannot start, the old one goes on: {reason}")
        old, slot.serving = slot.serving, fresh
        grace_s = self.drain_s() + _STOP_GRACE_S
        self._retiring.append(old.child)
        self._tasks.start(self._retire(old, grace_s), name=f"end of {old.child.program.name}")

    async def _retire(self, old: Serving, grace_s: float) -> None:
        try:
            await self._end(old, HAND_OVER, grace_s)
        finally:
            self._retiring.remove(old.child)

    async def _end(self, serving: Serving, number: signal.Signals, grace_s: float) -> None:
        if serving.watching is not None:
            serving.watching.cancel()
        await serving.child.stop(grace_s, number)
        serving.private.close()
        self._family.forget(serving.child)

    def _run(self, serving: Serving) -> None:
        name = serving.child.program.name
        self._tasks.start(serving.child.run(), name=name)
        watching = watch(serving.child, lambda: serving.address, self._settings.liveness_s)
        serving.watching = self._tasks.start(watching, name=f"{name} liveness")

    def _new(self, number: int, listener: socket.socket) -> Serving:
        private = bind("127.0.0.1", 0)
        fds = listener.fileno(), private.fileno()
        child = self._family.child(
            "gateway" if self._single else f"gateway {number}",
            "gateway",
            *(part for fd in fds for part in ("--fd", str(fd))),
            *self._family.configuration,
            *self._options,
            pass_fds=fds,
            announces=True,
        )
        return Serving(child, private)
