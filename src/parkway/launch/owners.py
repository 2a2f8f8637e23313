"""The owners of the documents on this machine: one child for each partition, started when there is a collection."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from parkway.core.errors import StartupError
from parkway.core.knowledge import NewCollection
from parkway.core.tasks import Tasks
from parkway.launch.child import Child, Say, State
from parkway.launch.control import ModelState
from parkway.launch.engines import SHOWN
from parkway.launch.family import Family
from parkway.launch.liveness import watch
from parkway.launch.memory import PROCESS_BYTES, own_bytes
from parkway.launch.reload import Commit
from parkway.launch.settings import Settings
from parkway.router.config import RouterConfig
from parkway.router.connections import Connections
from parkway.router.knowledge import Knowledge
from parkway.store.home import Home

VARIABLE = "PARKWAY_KNOWLEDGE"
"""Tells gateways and owners where the owners are: a URL for each partition. The first takes questions, and so do the
replicas, whose URLs stand after its own, each after a `|`."""

_SCAN_S = 600.0
_POLL_S = 0.05


def reserve(count: int) -> list[socket.socket]:
    """Sockets on ports that stay the same however often an owner is started again.

    Bound and not listened on: until an owner has its indexes open, whoever comes is refused and need not wait. From
    then on they listen, also while an owner is started again: who comes meanwhile is answered by the next.

    Raises:
        StartupError: There are no more ports.
    """
    try:
        return [_bound() for _ in range(count)]
    except OSError as error:
        raise StartupError(f"no port on 127.0.0.1 for the owner of the documents: {error.strerror}") from error


def addresses(sockets: Sequence[socket.socket], replicas: int) -> str:
    """What `VARIABLE` says of them: the first partition's owner, the replicas, the owners of the other partitions."""
    urls = [f"http://127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    return ",".join(["|".join(urls[: 1 + replicas]), *urls[1 + replicas :]])


def any_collections(settings: Settings, home: Home) -> bool:
    """Whether there is anything to own: a collection that is configured, or one that was added on this home."""
    if settings.knowledge:
        return True
    with suppress(OSError):
        return any(each.is_dir() for each in home.knowledge.iterdir())
    return False


@dataclass(frozen=True, slots=True)
class _Owner:
    """One of them, and the task that sees that it answers."""

    child: Child
    watching: asyncio.Task[None]
    changed: list[float]  # when its state last changed, in seconds of the monotonic clock

    def used_bytes(self) -> int | None:
        """Memory of its own; None while there is no process."""
        return own_bytes(self.child.pid) if self.child.pid is not None else None

    def charged_bytes(self) -> int:
        """What counts against the limit: what is needed while it starts, then what is used."""
        if self.child.state in ("given up", "stopped"):
            return 0
        used = self.used_bytes() or 0
        return used if self.child.state == "ready" else max(PROCESS_BYTES, used)


class Owners:
    """Starts the owners once they are needed, and keeps them running.

    Args:
        sockets: As by `reserve`, in the order of `addresses`.
        token: What owners ask of their clients.
        options: More for the command of each.
    """

    def __init__(
        self,
        settings: Settings,
        home: Home,
        family: Family,
        sockets: Sequence[socket.socket],
        token: str,
        say: Say,
        options: Sequence[str] = (),
    ) -> None:
        self._settings = settings
        self._home = home
        self._family = family
        self._sockets = sockets
        self._token = token
        self._say = say
        self._options = options
        self._owners: dict[int, _Owner] = {}
        self._tasks = Tasks("owners")

    def start(self, tasks: Tasks) -> None:
        """From now on they are started when they are needed, at once if they are already."""
        self._tasks = tasks
        if any_collections(self._settings, self._home):
            self._start()

    def prepare(self, settings: Settings) -> Commit:
        """Other settings: of collections there may be the first."""

        def commit() -> None:
            self._settings = settings
            if any_collections(settings, self._home):
                self._start()

        return commit

    def charged_bytes(self) -> int:
        """What counts against the limit of all that runs on this machine."""
        return sum(owner.charged_bytes() for owner in self._owners.values())

    def needed_bytes(self) -> int:
        """What they need at the least, if there is anything to own."""
        return PROCESS_BYTES * len(self._sockets) if any_collections(self._settings, self._home) else 0

    def states(self) -> list[ModelState]:
        """Each as `parkway ps` shows it."""
        return [
            ModelState(
                name=owner.child.program.name,
                state=SHOWN[owner.child.state],
                load="start",
                memory_bytes=owner.used_bytes(),
                since_s=time.monotonic() - owner.changed[0],
                requests=None,
                reason=owner.child.reason or None,
            )
            for _, owner in sorted(self._owners.items())
        ]

    async def ready(self) -> None:
        """Has them started, and returns once all of them serve.

        Raises:
            StartupError: One cannot start, or is not there in time.
        """
        self._start()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._settings.start_timeout_s):
                while any(_starts(owner.child) for owner in self._owners.values()):  # noqa: ASYNC110 - several
                    await asyncio.sleep(_POLL_S)
        for child in (owner.child for owner in self._owners.values()):
            if child.state == "given up":
                raise StartupError(f"{child.program.name} cannot start: {child.reason}")
            if not child.settled.is_set():
                why = "ended before it was ready" if child.state == "waiting" else "is not ready"
                raise StartupError(f"{child.program.name} {why}; its log is {child.log.path}")

    async def add(self, collection: str, new: NewCollection) -> None:
        """Has folders and files of this machine become part of a collection, which is made where there is none.

        Raises:
            StartupError: No owner can be started.
            ParkwayError: It refuses.
        """
        if not all(Path(path).is_absolute() for path in new.paths):
            raise StartupError("paths have to be absolute")
        await self.ready()
        connections = Connections(RouterConfig())
        try:
            knowledge = Knowledge(connections, [addresses(self._sockets[:1], 0)], self._token)
            deadline = asyncio.get_running_loop().time() + _SCAN_S
            await knowledge.add(collection, new, deadline)
        finally:
            connections.close()

    def close(self) -> None:
        """Gives the ports back."""
        for each in self._sockets:
            each.close()

    def _start(self) -> None:
        for number in range(len(self._sockets)):
            known = self._owners.get(number)
            if known is not None and known.child.state == "given up":
                # Whatever was wrong may have been put right: who asks gets another try.
                known.watching.cancel()
                self._family.forget(known.child)
                known = None
            if known is None:
                self._owners[number] = self._run(number)

    def _run(self, number: int) -> _Owner:
        replicas = self._settings.knowledge_replicas
        replica = number if number <= replicas else 0
        partition, partitions = 0 if replica else max(0, number - replicas), len(self._sockets) - replicas
        name = "knowledge" if partitions == 1 or replica else f"knowledge {partition}"
        name, place = f"{name} replica {replica}" if replica else name, self._sockets[number]
        host, port = place.getsockname()[:2]
        since = [time.monotonic()]

        def changed(state: State, _: str) -> None:
            since[0] = time.monotonic()
            if state == "ready":
                self._say(f"{name} is ready")

        child = self._family.child(
            name,
            "knowledge-owner",
            *("--partition", str(partition), "--partitions", str(partitions), "--replica", str(replica)),
            *("--fd", str(place.fileno())),
            *self._family.configuration,
            *self._options,
            pass_fds=(place.fileno(),),
            announces=True,
            on_change=changed,
        )
        self._tasks.start(child.run(), name=name)
        watching = watch(child, lambda: (str(host), int(port)), self._settings.liveness_s)
        return _Owner(child, self._tasks.start(watching, name=f"{name} liveness"), since)


def _starts(child: Child) -> bool:
    """Whether it may be ready in a moment; one that has ended before it was is started again, but not waited for."""
    return not child.settled.is_set() and child.state != "waiting"


def _bound() -> socket.socket:
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        bound.bind(("127.0.0.1", 0))
    except OSError:
        bound.close()
        raise
    return bound
