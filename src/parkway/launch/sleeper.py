"""A model that sleeps until it is asked for: the engine that it has while it does not, and what is known of both.

The states, and what moves between them:

    asleep --asked for--> waiting --there is room--> loading --announced--> ready --idle, or room is needed--> unloading
      ^                                                 |                     |                                   |
      +------------ (given up: cannot start) -----------+------- ended -------+---------------- ended ------------+
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Literal
from urllib.parse import urlsplit

from parkway.core.errors import ModelFilesError, NoEndpoint
from parkway.core.tasks import Tasks
from parkway.engine.config import EngineConfig
from parkway.launch.child import Child, State
from parkway.launch.liveness import Address, watch
from parkway.launch.memory import Need, need_of, resident_bytes
from parkway.launch.probe import activity
from parkway.launch.publication import Publication
from parkway.router.endpoint import Endpoint

RETRY_S = 30.0
"""So long is a model that could not be loaded refused with the same reason; then it is tried again."""

SleeperState = Literal["asleep", "waiting", "loading", "ready", "unloading"]
Start = Callable[[str, str, EngineConfig, Mapping[str, str], Callable[[State, str], None]], Child]
"""Makes the child that serves a model: its name, its directory, its settings, its adapters, who hears of its states."""


class Sleeper:
    """One model that is loaded on demand.

    Args:
        path: Its directory.
        keep_alive_s: How long it stays loaded without use.
        adapters: Those that its engine holds: name -> directory.
        asleep: What is published while nothing serves it: its own endpoint, and one for each adapter.
        token: What engines ask of their clients.
        end: Told each child that has ended.

    Attributes:
        used_at: When it was last seen in use, in seconds of the monotonic clock.
        requests: Answers that ran or waited when it was last looked at.
        wanted: How many wait for it to be ready.
        refusal: Why it cannot be loaded; told at once until `RETRY_S` have passed.
        dismissed: It is published no more.
        outdated: Its files are no longer those that the engine has loaded.
    """

    def __init__(
        self,
        name: str,
        path: str,
        keep_alive_s: float,
        *,
        config: EngineConfig,
        adapters: Mapping[str, str],
        asleep: Sequence[Endpoint],
        token: str,
        start: Start,
        end: Callable[[Child], None],
        publication: Publication,
        liveness_s: float,
    ) -> None:
        self.name = name
        self.path = path
        self.keep_alive_s = keep_alive_s
        self.state: SleeperState = "asleep"
        self.since = self.used_at = self.loaded_at = time.monotonic()
        self.requests = 0
        self.wanted = 0
        self.refusal: NoEndpoint | None = None
        self.dismissed = False
        self.outdated = False
        self._config = config
        self._adapters = adapters
        self._asleep = asleep
        self._token = token
        self._start = start
        self._end = end
        self._publication = publication
        self._liveness_s = liveness_s
        self._child: Child | None = None
        self._life: asyncio.Task[None] | None = None
        self._address: Address | None = None
        self._steps = 0
        self._measured_bytes: int | None = None
        self._reserved_bytes = 0
        self._refused_at = 0.0
        self._need: Need | None = None
        publication.put(*asleep)

    @property
    def models(self) -> list[str]:
        """What clients may ask for that its engine serves: itself, and itself with each adapter."""
        return [endpoint.model for endpoint in self._asleep]

    @property
    def address(self) -> Address | None:
        """Where its engine serves; None while it does not."""
        return self._address

    def need(self) -> Need:
        """What it may use at most. Read anew until it could be: its files may still be on their way.

        Raises:
            NoEndpoint: Its files cannot be read.
        """
        if self._need is None:
            try:
                self._need = need_of(self.path, self._config, self._adapters.values())
            except ModelFilesError as error:
                raise NoEndpoint(f"model {self.name!r} cannot be loaded: {error.message}") from error
        return self._need

    def needed_bytes(self) -> int:
        """What to keep free for it: what it used when it last ran, else what its files tell. Raises like `need`."""
        return self._measured_bytes or self.need().total_bytes

    def resident_bytes(self) -> int | None:
        """What its engine uses; None where there is none."""
        return resident_bytes(self._child.pid) if self._child is not None and self._child.pid is not None else None

    def charged_bytes(self) -> int:
        """What counts against the limit: what is needed while it loads, then what is used."""
        if self.state in ("asleep", "waiting"):
            return 0
        resident = self.resident_bytes()
        return self._reserved_bytes if self.state == "loading" or resident is None else resident

    def become(self, state: SleeperState) -> None:
        """Changes the state; where it is published as ready, so is that it no longer is."""
        if state != self.state:
            self.state, self.since = state, time.monotonic()
        if self.dismissed:
            return
        if state == "ready" and self._address is not None:
            host, port = self._address
            url = f"http://{host}:{port}/v1"
            self._publication.put(*(replace(each, url=url, state="ready") for each in self._asleep))
        else:
            self._publication.put(*self._asleep)

    def dismiss(self) -> None:
        """Takes it out of the registry for good."""
        self.dismissed = True
        self._publication.remove(*(endpoint.endpoint_id for endpoint in self._asleep))

    def renew(self) -> None:
        """Its files have changed: nothing that is known of them holds any more."""
        self._need = self._measured_bytes = self.refusal = None
        self.outdated = True

    def refuse(self, error: NoEndpoint) -> None:
        """Remembers why it cannot be loaded."""
        self.refusal, self._refused_at = error, time.monotonic()

    def check_refusal(self) -> None:
        """Raises the last refusal while it is fresh: trying again at every request would only keep the machine busy."""
        left_s = RETRY_S - (time.monotonic() - self._refused_at)
        if self.refusal is not None and left_s > 0:
            raise NoEndpoint(self.refusal.message, retry_after_s=left_s)

    async def load(self, tasks: Tasks) -> None:
        """Starts the engine and returns once it serves.

        Raises:
            NoEndpoint: It does not start.
        """
        settled = asyncio.Event()

        def changed(state: State, address: str) -> None:
            if state == "ready":
                self._ready(address)
            if state in ("ready", "given up", "stopped"):
                settled.set()

        self.outdated = False
        self._reserved_bytes = self.needed_bytes()
        self.become("loading")
        child = self._child = self._start(self.name, self.path, self._config, self._adapters, changed)
        self._life = tasks.start(self._run(child), name=child.program.name)
        await settled.wait()
        if self._address is None:
            await asyncio.wait({self._life})
            raise NoEndpoint(f"model {self.name!r} cannot be loaded: {child.reason or 'Parkway stops'}")
        self.refusal = None

    async def stop(self, grace_s: float) -> None:
        """Ends the engine and returns when nothing is left of it; running answers have `grace_s` seconds."""
        if self._child is not None and self._life is not None:
            await self._child.stop(grace_s)
            await asyncio.wait({self._life})

    async def look(self) -> None:
        """Learns what the engine is doing. One that does not tell is taken to be busy."""
        if self._address is None:
            return
        found = await activity(*self._address, self._token)
        if self._address is None:  # it ended meanwhile
            return
        if found is None or found.requests or found.steps != self._steps:
            self.used_at = time.monotonic()
        if found is not None:
            self.requests, self._steps = found.requests, found.steps
        if (resident := self.resident_bytes()) is not None and self.state == "ready":
            self._measured_bytes = max(resident, self._measured_bytes or 0)

    def _ready(self, address: str) -> None:
        parts = urlsplit(address)
        self._address = (parts.hostname or "", parts.port or 80)
        self.used_at = self.loaded_at = time.monotonic()
        self._steps = self.requests = 0
        self.become("ready")

    async def _run(self, child: Child) -> None:
        """The engine's one life, from its start to when nothing is left of it."""
        async with Tasks(self.name) as tasks:
            tasks.start(watch(child, lambda: self._address, self._liveness_s), name="liveness")
            await child.run()
        self._child = self._address = None
        self.requests = 0
        self.become("asleep")
        self._end(child)
