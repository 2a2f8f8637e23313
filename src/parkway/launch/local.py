"""`parkway up`: gateway, worker and engines as child processes of one supervisor on this machine."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

from parkway.core.errors import StartupError
from parkway.core.tasks import Tasks
from parkway.launch import owners, running
from parkway.launch.catalogue import Catalogue
from parkway.launch.child import Say
from parkway.launch.control import Control, Overview
from parkway.launch.engines import TOKEN_VARIABLE, Engines
from parkway.launch.family import Family
from parkway.launch.followed import Followed
from parkway.launch.gateways import Gateways
from parkway.launch.listener import bind_each, reachable
from parkway.launch.memory import default_limit_bytes
from parkway.launch.on_demand import OnDemand
from parkway.launch.owners import Owners, addresses, reserve
from parkway.launch.publication import Publication, remote_endpoints
from parkway.launch.registry import open_registry
from parkway.launch.reload import Source
from parkway.launch.settings import Settings
from parkway.policy.chain import administered
from parkway.policy.keys import KeyStore, ensure_first_key
from parkway.router.registry import EndpointRegistry
from parkway.store.home import Home
from parkway.store.sql import Database

INTERRUPTED = 130
"""Exit code of a stop that did not wait for running requests."""

_STOP_GRACE_S = 5.0
_POLL_S = 0.05
_ROTATE_S = 60.0
_FOLLOW_S = 1.0


def up(settings: Settings, home: Home, say: Say, announce: Callable[[str], None], source: Source | None = None) -> int:
    """Runs Parkway until it is told to stop, and returns the exit code.

    Args:
        say: Told one line about each thing that happens.
        announce: Told `http://HOST:PORT` when the first request would succeed.
        source: Where `settings` come from; its changes are followed.

    Raises:
        ConfigurationError: The configuration names an environment variable that is not set, or the permissions are
            wrong.
        StartupError: Another Parkway runs on the home, the port is taken, the store cannot be used, or nothing that
            is configured can be served.
    """
    settings.check_environment()
    settings.permissions.policies()
    with home.lock(), ExitStack() as held:
        gateway = settings.gateway
        listeners = [held.enter_context(each) for each in bind_each(gateway.host, gateway.port, gateway.workers)]
        return asyncio.run(Local(settings, home, listeners, say, announce, source).run())


class Local:
    """The processes of one `parkway up`, and their life: start, announce, watch, drain."""

    def __init__(
        self,
        settings: Settings,
        home: Home,
        listeners: Sequence[socket.socket],
        say: Say,
        announce: Callable[[str], None],
        source: Source | None = None,
    ) -> None:
        self._settings = settings
        self._home = home
        self._listeners = listeners
        self._say = say
        self._announce = announce
        self._source = source
        self._stopping = asyncio.Event()
        self._hurried = False
        self._publication = Publication(say)
        self._token = secrets.token_urlsafe(32)
        places = reserve(settings.knowledge_partitions + settings.knowledge_replicas)
        with _writing(home):
            environment = {TOKEN_VARIABLE: self._token, owners.VARIABLE: addresses(places, settings.knowledge_replicas)}
            family = Family(settings, home, environment, say)
        self._family = family
        followed = () if source is None else ("--source", str(source.path))
        self._owners = Owners(settings, home, family, places, self._token, say, followed)
        self._limit_bytes = settings.memory_bytes or default_limit_bytes()
        self._engines = Engines(settings, family, self._publication, self._token, say)
        self._engines.check_fit(self._limit_bytes, self._owners.needed_bytes())
        shutil.rmtree(home.figures, ignore_errors=True)  # those of an earlier run
        self._gateways = Gateways(settings, family, listeners, say, *followed)
        self._followed: Followed | None = None
        self._registry: EndpointRegistry
        self._worker = family.child("worker", "worker", *family.configuration, *followed)

    async def run(self) -> int:
        """Runs until a signal; returns the exit code."""
        self._listen_for_signals()
        if not self._settings.models and not self._settings.pulled_models:
            self._say("no models are configured: every request will be answered with model_not_found")
        self._say(f"starting on {self._home.path}: {', '.join(child.program.name for child in self._family.children)}")
        async with Tasks("up") as tasks:
            # First of all, because an engine takes longest to start and needs nothing from the store.
            self._engines.start(tasks)
            on_demand, catalogue = self._lay_out(tasks)
            database = self._open_store()
            overview = partial(self._overview, on_demand)
            control = Control(self._home, on_demand.wake, overview, self._gateways.reload, self._owners)
            self._listen_for_reload(tasks)
            try:
                with _writing(self._home):
                    await control.start()
                on_demand.start()
                self._owners.start(tasks)
                self._follow_configuration(tasks)
                self._gateways.start(tasks)
                if await self._becomes_ready():
                    tasks.start(self._worker.run(), name="worker")
                    tasks.every(_ROTATE_S, self._family.rotate_logs, name="logs")
                    if self._settings.pulled_models:
                        tasks.every(_FOLLOW_S, catalogue.follow, name="pulled models")
                    await self._stopping.wait()
                await self._drain(on_demand)
            finally:
                await control.close()
                self._publication.close()
                self._registry.close()
                self._owners.close()
                running.remove(self._home)
                database.close()
        return INTERRUPTED if self._hurried else 0

    def _lay_out(self, tasks: Tasks) -> tuple[OnDemand, Catalogue]:
        """What is loaded on demand."""
        drain_s = self._settings.engine.drain_s

        def always_bytes() -> int:
            return self._engines.charged_bytes() + self._owners.charged_bytes()

        on_demand = OnDemand(self._limit_bytes, always_bytes, drain_s, self._publication, tasks, self._say)
        catalogue = Catalogue(
            self._settings, self._home, self._family, self._publication, on_demand, self._token, self._say
        )
        if self._settings.pulled_models:
            catalogue.adopt_pulled()
        if names := on_demand.names():
            self._say(f"loaded when they are asked for: {', '.join(names)}")
        return on_demand, catalogue

    async def _overview(self, on_demand: OnDemand) -> Overview:
        models = [*await self._engines.states(), *on_demand.states(), *self._owners.states()]
        return Overview(limit_bytes=self._limit_bytes, used_bytes=on_demand.used_bytes(), models=models)

    def _listen_for_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, number)

    def _listen_for_reload(self, tasks: Tasks) -> None:
        """SIGHUP: of a terminal that closes it means the end, as ever; else that the gateways be replaced."""
        loop = asyncio.get_running_loop()
        if os.isatty(0):
            loop.add_signal_handler(signal.SIGHUP, self._on_signal, signal.SIGHUP)
            return

        async def reload() -> None:
            try:
                await self._gateways.reload()
            except StartupError as error:
                self._say(error.message)

        loop.add_signal_handler(signal.SIGHUP, lambda: tasks.start(reload(), name="reload"))

    def _on_signal(self, number: signal.Signals) -> None:
        if self._stopping.is_set() and number == signal.SIGINT:
            self._hurried = True
            self._family.kill()
        self._stopping.set()

    def _open_store(self) -> Database:
        """The database, in its newest form, with a key and with the endpoints of this configuration."""
        database = Database.open(self._settings.store.url or self._home.database_url, self._settings.store)
        database.migrate()
        with _writing(self._home):
            first_key = ensure_first_key(self._home, KeyStore(database))
        if first_key is not None:
            self._say("created the first API key; `parkway key show` prints it")
        self._registry = open_registry(self._settings, self._home, database, self._say, administered)
        self._registry.replace("config", remote_endpoints(self._settings))
        self._publication.start(lambda endpoints: self._registry.replace("local", endpoints))
        return database

    def _follow_configuration(self, tasks: Tasks) -> None:
        if self._source is not None:
            write = partial(self._registry.replace, "config")
            self._followed = Followed(
                self._settings, self._source, self._home, write, self._owners.prepare, self._say, self._family.troubles
            )
            self._followed.start(tasks)
            self._gateways.drain_s = lambda: self._drain_s

    @property
    def _drain_s(self) -> float:
        """How long gateways are given now, which may not be what it was at the start."""
        return (self._settings if self._followed is None else self._followed.settings).gateway.drain_s

    async def _becomes_ready(self) -> bool:
        """Waits until the first request would succeed and says so; False if a signal came first.

        Raises:
            StartupError: The gateway cannot start, or no model at all can be served.
        """
        host, port = reachable(self._listeners[0])
        deadline = time.monotonic() + self._settings.start_timeout_s
        while not self._stopping.is_set():
            self._gateways.check()
            answer = await self._gateways.readiness()
            self._engines.check_any_left()  # after the wait: an engine may have been given up in it
            if answer is None and time.monotonic() > deadline:
                raise StartupError(f"the gateway does not answer; its log is {self._gateways.children[0].log.path}")
            if answer is not None and not self._engines.waits_for(answer.reasons):
                with _writing(self._home):
                    running.write(self._home, running.Running(url=f"http://{_joined(host, port)}", pid=os.getpid()))
                self._announce(f"http://{_joined(self._settings.gateway.host, port)}")
                return True
            await asyncio.sleep(_POLL_S)
        return False

    async def _drain(self, on_demand: OnDemand) -> None:
        """The gateway first, so that running requests still have their engines; then everything else."""
        grace_s = self._drain_s
        self._say(f"stopping: running requests have up to {grace_s:g} s; Ctrl-C again stops at once")
        # As long as we hold the socket, new clients would wait in its queue instead of being refused.
        for listener in self._listeners:
            listener.close()
        gateways = self._gateways.children
        await self._gateways.stop(grace_s + _STOP_GRACE_S)
        on_demand.close()
        others = [child for child in self._family.children if child not in gateways]
        await asyncio.gather(*(child.stop(_STOP_GRACE_S) for child in others))
        self._say("stopped")


@contextmanager
def _writing(home: Home) -> Iterator[None]:
    """Explains that a file of the home cannot be written: its disk may have filled up since it was opened."""
    try:
        yield
    except OSError as error:
        raise StartupError(f"the home {home.path} cannot be written to: {error}") from error


def _joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
