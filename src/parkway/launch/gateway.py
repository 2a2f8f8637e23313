"""The gateway process: puts the parts together and serves them on a socket."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import uvloop
from starlette.types import ASGIApp

from parkway import __version__
from parkway.aggregate.conversations import Conversations
from parkway.aggregate.responses import Responses
from parkway.core.errors import StoreUnavailable
from parkway.core.tasks import Tasks
from parkway.feedback.combined import Combined
from parkway.feedback.log import RequestLog
from parkway.feedback.metrics import Metrics
from parkway.feedback.otlp import Exporter
from parkway.feedback.routing import RoutingFigures
from parkway.feedback.scores import Scores
from parkway.feedback.traces import TraceLog
from parkway.gateway.app import create
from parkway.gateway.readiness import Readiness
from parkway.launch.control import wake
from parkway.launch.intakes import intakes_of
from parkway.launch.serving import listen
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

    from parkway.router.follower import Follower

_STORE_PAUSE_S = 0.5
_FIGURES_S = 2.0


def run(settings: Settings, home: Home, listeners: Sequence[socket.socket]) -> None:
    """Serves the gateway on `listeners` until SIGTERM or SIGINT, then drains; on SIGUSR1 lets another take over.

    Prints `ready http://HOST:PORT`, with the first of them, once it serves.

    Raises:
        StartupError: The store cannot be reached.
    """
    uvloop.run(_serve(settings, home, listeners))


async def _serve(settings: Settings, home: Home, listeners: Sequence[socket.socket]) -> None:
    database = Database.open(settings.store.url or home.database_url, settings.store)
    try:
        async with assemble(settings, database, partial(wake, home), home=home) as (app, readiness):
            gc.freeze()  # what is here now stays: the collector need not walk it again for every few requests
            await listen(app, readiness, settings.gateway, listeners)
    finally:
        database.close()


@asynccontextmanager
async def assemble(
    settings: Settings, database: Database, wake: Wake | None = None, *, home: Home | None = None
) -> AsyncIterator[tuple[ASGIApp, Readiness]]:
    """Everything that the pipeline works with, live: keys and endpoints follow the store.

    Args:
        wake: Loads a model that sleeps.
        home: Where this Parkway keeps who it is; without one, it shares its registry with nobody.
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
    sharing = settings.admission.gateways * settings.gateway.workers
    gates = Gates(
        settings.admission.model_copy(update={"gateways": sharing}),
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
    publisher = settings.publisher(home) if home is not None else ""
    registry = Registry(database, publisher=publisher)
    follower: Follower | None = None
    if settings.registry.etcd:
        # With aiohttp, which costs a tenth of a second of every start and is needed for nothing else here.
        from parkway.router.follower import Follower

        kept = home.registry_file if home is not None else None
        follower = Follower(settings.registry, publisher, view.load, kept)
        metrics.show("parkway_registry_connected", "1 while etcd answers", partial(getattr, follower, "connected"))

    async def load_endpoints() -> None:
        view.load(await database.run(registry.read, write=False))

    async def load_keys() -> None:
        await keys.load(database)

    async def follow() -> None:
        loads = {"keys": load_keys}
        if follower is None:
            loads["endpoints"] = load_endpoints
        async for topic in Watch(database, loads):
            await _until_done(loads[topic])

    await load_keys()
    await ledger.load(settings.budgets)
    readiness = Readiness(view=view, expected=settings.models_at_start())
    if follower is None:
        await load_endpoints()
    else:
        follower.on_change = partial(_tell_connected, readiness)
        await follower.start()
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
        if follower is not None:
            tasks.start(follower.run(), name="registry")
        if home is not None and settings.gateway.workers > 1:
            metrics.combined = combined = Combined(metrics.registry, home.figures)
            tasks.every(_FIGURES_S, lambda: asyncio.to_thread(combined.write), name="figures")
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
            if follower is not None:
                await follower.close()
            if metrics.combined is not None:
                metrics.combined.end()


def _shared_counters(settings: Settings, redis: Redis | None) -> SharedCounters | None:
    """The counters that gateways share; None where there is no Redis, and each counts for itself."""
    if redis is None:
        return None
    config = settings.redis
    on_outage = settings.limits.on_outage
    return SharedCounters(redis, prefix=config.prefix, timeout_s=config.timeout_s, on_outage=on_outage)


def _tell_connected(readiness: Readiness, connected: bool) -> None:
    """Says whether the registry answers, to whoever looks."""
    if connected:
        readiness.warnings.pop("registry", None)
    else:
        readiness.warnings["registry"] = "etcd does not answer; the endpoints are those that were known last"


async def _until_done(load: Callable[[], Awaitable[None]]) -> None:
    """Loads what has changed. A store that fails in between must not cost the change: the old view stays until then."""
    while True:
        try:
            return await load()
        except StoreUnavailable:
            await asyncio.sleep(_STORE_PAUSE_S)
