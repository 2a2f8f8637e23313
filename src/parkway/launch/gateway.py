"""The gateway process: puts the parts together and serves them on a socket."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING

import uvicorn
import uvloop
from starlette.types import ASGIApp

from parkway import __version__
from parkway.aggregate.conversations import Conversations
from parkway.aggregate.responses import Responses
from parkway.core.errors import StoreUnavailable
from parkway.core.tasks import Tasks
from parkway.feedback.log import RequestLog
from parkway.feedback.metrics import Metrics
from parkway.feedback.otlp import Exporter
from parkway.feedback.routing import RoutingFigures
from parkway.feedback.scores import Scores
from parkway.feedback.traces import TraceLog
from parkway.gateway.app import create
from parkway.gateway.protocol import bounded
from parkway.gateway.readiness import Readiness
from parkway.launch.control import wake
from parkway.launch.intakes import intakes_of
from parkway.launch.settings import Settings
from parkway.pipeline.embedding import Embedding
from parkway.pipeline.parts import Parts
from parkway.pipeline.queue_figures import QueueFigures
from parkway.pipeline.shaping import Shaping
from parkway.policy.audit import AuditLog
from parkway.policy.chain import operator
from parkway.policy.guardrails.guardrails import Guardrails
from parkway.policy.keys import KeyRing
from parkway.policy.ledger import Ledger
from parkway.policy.limiter import Limiter
from parkway.policy.shared_counters import SharedCounters
from parkway.router.admission.gates import Gates
from parkway.router.registry import Registry
from parkway.router.router import Router
from parkway.router.view import View
from parkway.router.waking import Wake
from parkway.store.home import Home
from parkway.store.redis import connect
from parkway.store.revisions import Watch
from parkway.store.sql import Database

if TYPE_CHECKING:
    from redis.asyncio import Redis

_STORE_PAUSE_S = 0.5


def run(settings: Settings, home: Home, listener: socket.socket) -> None:
    """Serves the gateway on `listener` until SIGTERM or SIGINT, then drains.

    Raises:
        StartupError: The store cannot be reached.
    """
    uvloop.run(_serve(settings, home, listener))


async def _serve(settings: Settings, home: Home, listener: socket.socket) -> None:
    database = Database.open(settings.store.url or home.database_url, settings.store)
    try:
        async with assemble(settings, database, partial(wake, home)) as (app, readiness):
            gc.freeze()  # what is here now stays: the collector need not walk it again for every few requests
            await _listen(app, readiness, settings, listener)
    finally:
        database.close()


@asynccontextmanager
async def assemble(
    settings: Settings, database: Database, wake: Wake | None = None
) -> AsyncIterator[tuple[ASGIApp, Readiness]]:
    """Everything that the pipeline works with, live: keys and endpoints follow the store.

    Args:
        wake: Loads a model that sleeps.
    """
    keys = KeyRing()
    view = View()
    intakes = intakes_of(settings)
    router = Router(
        view,
        settings.router,
        wake=wake,
        balance=settings.balance(),
        fallbacks=settings.fallbacks(),
        intake_of=intakes,
    )
    gates = Gates(
        settings.admission,
        router.intakes,
        own={name: model.admission for name, model in settings.models.items()},
        shared=settings.adapted_models(),
        most_per_endpoint=settings.router.connections_per_endpoint,
    )
    requests = RequestLog(database, settings.feedback)
    redis = connect(settings.redis)
    counters = _shared_counters(settings, redis)
    limiter = Limiter(settings.limits, counters, budgets=settings.budgets, prices=settings.prices())
    limiter.ledger = ledger = Ledger(database, limiter.learn)
    audit = AuditLog(database, settings.audit)
    exporter = Exporter.of(settings.traces)
    traces = TraceLog(database, settings.traces, exporter.put if exporter is not None else None)
    metrics = Metrics(
        router.models,
        lambda: requests.shed,
        audit_lost=lambda: audit.lost,
        spans_shed=lambda: traces.shed + (exporter.shed if exporter is not None else 0),
    )
    metrics.registry.register(RoutingFigures(router.conditions, router.counts.of))
    parts = Parts(
        keys=keys,
        limiter=limiter,
        conversations=Conversations(database, settings.conversations),
        responses=Responses(database, settings.responses),
        shaping=Shaping(settings.admission),
        gates=gates,
        router=router,
        log=requests,
        metrics=metrics,
        audit=audit,
        traces=traces,
        bounds=settings.bounds,
        guardrails=Guardrails(settings.guardrails, embed=Embedding(router), audit=audit.found),
    )
    metrics.registry.register(QueueFigures(gates))
    metrics.show(
        "parkway_limits_outage",
        "1 while limits are not shared because Redis is away",
        lambda: counters is not None and counters.away,
    )
    registry = Registry(database)

    async def load_endpoints() -> None:
        view.load(await database.run(registry.read, write=False))

    async def load_keys() -> None:
        await keys.load(database)

    async def follow() -> None:
        loads = {"keys": load_keys, "endpoints": load_endpoints}
        async for topic in Watch(database, loads):
            await _until_done(loads[topic])

    await load_keys()
    await load_endpoints()
    await ledger.load(settings.budgets)
    readiness = Readiness(view=view, expected=settings.models_at_start())
    async with Tasks("gateway") as tasks:
        await router.start()
        requests.start(tasks)
        ledger.start(tasks)
        if counters is not None:
            counters.start(tasks)
        process = f"parkway {__version__}, process {os.getpid()} on {socket.gethostname()}"
        audit.administer("gateway.start", process, actor=operator())
        audit.start(tasks)
        traces.start(tasks)
        if exporter is not None:
            exporter.start()
        tasks.start(follow(), name="follow")
        gates.start(tasks, lambda: settings.gateway.drain_s if readiness.draining else None)
        try:
            yield create(parts, Scores(database, requests), readiness, settings.gateway, database), readiness
        finally:
            await router.close()
            audit.administer("gateway.stop", process, actor=operator())
            await asyncio.gather(requests.close(), ledger.close(), audit.close(), traces.close())
            if exporter is not None:
                await asyncio.to_thread(exporter.close)
            if counters is not None:
                await counters.close()
            if redis is not None:
                await redis.aclose()


def _shared_counters(settings: Settings, redis: Redis | None) -> SharedCounters | None:
    """The counters that gateways share; None where there is no Redis, and each counts for itself."""
    if redis is None:
        return None
    config = settings.redis
    on_outage = settings.limits.on_outage
    return SharedCounters(redis, prefix=config.prefix, timeout_s=config.timeout_s, on_outage=on_outage)


async def _until_done(load: Callable[[], Awaitable[None]]) -> None:
    """Loads what has changed. A store that fails in between must not cost the change: the old view stays until then."""
    while True:
        try:
            return await load()
        except StoreUnavailable:
            await asyncio.sleep(_STORE_PAUSE_S)


class _DrainingServer(uvicorn.Server):
    """uvicorn, which on the first signal refuses what is new and finishes what runs; on the second, stops at once."""

    def __init__(self, config: uvicorn.Config, readiness: Readiness) -> None:
        super().__init__(config)
        self._readiness = readiness

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - uvicorn's signature
        # uvicorn's own version raises the signal again after the drain, which would end the process before the
        # request log is flushed.
        self.force_exit = self.should_exit
        self.should_exit = True
        self._readiness.draining = True


async def _listen(app: ASGIApp, readiness: Readiness, settings: Settings, listener: socket.socket) -> None:
    config = uvicorn.Config(
        app,
        loop="none",
        http=bounded(settings.gateway),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # nothing here depends on the client's address
        timeout_graceful_shutdown=max(1, round(settings.gateway.drain_s)),
        timeout_keep_alive=75,  # longer than the idle time of the proxies that stand in front of gateways
    )
    await _DrainingServer(config, readiness).serve(sockets=[listener])
