"""The gateway process: puts the parts together and serves them on a socket."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop

from parkway import __version__
from parkway.aggregate.conversations import Conversations
from parkway.aggregate.response_cache import generations
from parkway.aggregate.response_cache.cache import ResponseCache
from parkway.aggregate.response_cache.config import ResponseCacheConfig
from parkway.aggregate.response_cache.generations import Generations
from parkway.aggregate.response_cache.redis_shelf import RedisShelf
from parkway.aggregate.response_cache.shelf import MemoryShelf, Shelf
from parkway.aggregate.responses import Responses
from parkway.core.errors import ConfigurationError, StoreUnavailable
from parkway.core.tasks import Tasks
from parkway.feedback.combined import Combined
from parkway.feedback.log import RequestLog
from parkway.feedback.metrics import Metrics
from parkway.feedback.otlp import Export
from parkway.feedback.routing import RoutingFigures
from parkway.feedback.scores import Scores
from parkway.feedback.traces import TraceLog
from parkway.gateway.app import create
from parkway.gateway.config import InForce
from parkway.gateway.door import Door
from parkway.gateway.readiness import Readiness
from parkway.launch import owners
from parkway.launch.control import own, wake
from parkway.launch.engines import TOKEN_VARIABLE
from parkway.launch.intakes import intakes_of
from parkway.launch.live import Live, shared_by
from parkway.launch.reload import INTERVAL_S, Outcome, Reload, Source, Watcher
from parkway.launch.serving import listen
from parkway.launch.settings import Settings
from parkway.launch.trouble import CONFIGURATION, Telling, refusal
from parkway.pipeline.embedding import Embedding
from parkway.pipeline.flight import Flights
from parkway.pipeline.grounds import Grounds, Searching
from parkway.pipeline.parts import Current, Parts
from parkway.pipeline.passage_figures import PassageFigures
from parkway.pipeline.queue_figures import QueueFigures
from parkway.pipeline.shaping import Shaping
from parkway.policy.audit import AuditLog
from parkway.policy.chain import operator
from parkway.policy.guardrails.guardrails import Guardrails
from parkway.policy.identity import Identity
from parkway.policy.key_ring import KeyRing
from parkway.policy.ledger import Ledger
from parkway.policy.limiter import Limiter
from parkway.policy.permissions import Permissions
from parkway.policy.shared_counters import SharedCounters
from parkway.router.admission.gates import Gates
from parkway.router.connections import Connections
from parkway.router.endpoint import Endpoint
from parkway.router.knowledge import Knowledge, places_of
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


log = logging.getLogger(__name__)

_STORE_PAUSE_S = 0.5
_FIGURES_S = 2.0

_COLLECT_AFTER = (10_000, 10, 10)
"""Thresholds of the garbage collector. The first is not Python's own: with that it walks what 100,000 keys have left
behind every few thousand requests, an eighth of their cost, and finds little, as next to nothing of a request hangs
together in a ring. The others are, or what failures leave behind would stay for long."""


def run(settings: Settings, home: Home, listeners: Sequence[socket.socket], source: Path | None = None) -> None:
    """Serves the gateway on `listeners` until SIGTERM or SIGINT, then drains; on SIGUSR1 lets another take over.

    Prints `ready http://HOST:PORT`, with the first of them, once it serves.

    Args:
        source: The configuration file whose changes are followed.

    Raises:
        ConfigurationError: The permissions or the identity providers are wrong.
        StartupError: The store cannot be reached.
    """
    uvloop.run(_serve(settings, home, listeners, source))


async def _serve(settings: Settings, home: Home, listeners: Sequence[socket.socket], source: Path | None) -> None:
    database = Database.open(settings.store.url or home.database_url, settings.store)
    try:
        async with assemble(settings, database, partial(wake, home), home=home, source=source) as (app, readiness):
            gc.freeze()  # what is here now stays: the collector need not walk it again for every few requests
            gc.set_threshold(*_COLLECT_AFTER)
            await listen(app, readiness, listeners)
    finally:
        database.close()


@asynccontextmanager
async def assemble(
    settings: Settings,
    database: Database,
    wake: Wake | None = None,
    *,
    home: Home | None = None,
    source: Path | None = None,
    look_s: float = INTERVAL_S,
    searching: Searching | None = None,
) -> AsyncIterator[tuple[Door, Readiness]]:
    """Everything that the pipeline works with, live: keys and endpoints follow the store, settings their file.

    Args:
        wake: Loads a model that sleeps.
        home: Where this Parkway keeps who it is; without one, it shares its registry with nobody.
        source: The configuration file, looked at every `look_s`.
        searching: Where collections of documents are searched.
    """
    keys = KeyRing()
    identity = Identity(keys)
    trust_issuers = identity.prepare(settings.identity)
    permissions = Permissions(settings.permissions.policies())
    view = View()
    router = Router(
        view,
        settings.router,
        wake=wake,
        balance=settings.balance(),
        fallbacks=settings.fallbacks(),
        intake_of=intakes_of(settings),
    )
    gates = Gates(
        shared_by(settings.admission, settings.gateway.workers),
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
    export = Export(settings.traces)
    traces = TraceLog(database, settings.traces, export.put)
    metrics = Metrics(
        router.models,
        lambda: requests.shed,
        audit_lost=lambda: audit.lost,
        spans_shed=lambda: traces.shed + export.shed,
    )
    metrics.registry.register(RoutingFigures(router.conditions, router.counts.of))
    flights = Flights(settings.gateway.timeout_s)
    asking = Connections(settings.router)
    reload = Reload(settings)
    knowledge = _knowledge(reload, home, asking)
    cleared = Generations()
    cache_of = partial(
        _response_cache, cleared=cleared, view=view, router=router, redis=redis, prefix=settings.redis.prefix
    )
    parts = Parts(
        identity=identity,
        permissions=permissions,
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
        response_cache=cache_of(settings.response_cache),
        flights=flights,
        grounds=Grounds(settings.grounding, settings.grounded_models(), searching or knowledge),
        knowledge=knowledge,
    )
    metrics.registry.register(QueueFigures(gates))
    metrics.registry.register(PassageFigures())
    metrics.show(
        "parkway_limits_outage",
        "1 while limits are not shared because Redis is away",
        lambda: counters is not None and counters.away,
    )
    current = Current(parts)
    in_force = InForce(settings.gateway)
    publisher = settings.publisher(home) if home is not None else ""
    registry = Registry(database, publisher=publisher)
    follower: Follower | None = None
    if settings.registry.etcd:
        # With aiohttp, which costs a tenth of a second of every start and is needed for nothing else here.
        from parkway.router.follower import Follower

        kept = home.registry_file if home is not None else None
        follower = Follower(settings.registry, publisher, partial(_adopt, view, audit), kept)
        metrics.show("parkway_registry_connected", "1 while etcd answers", partial(getattr, follower, "connected"))

    Live(
        started=settings,
        database=database,
        current=current,
        in_force=in_force,
        export=export,
        counters=counters,
        cache_of=lambda new: cache_of(new, before=current.parts.response_cache),
    ).register(reload)

    async def load_endpoints() -> None:
        view.load(await database.run(registry.read, write=False))

    async def load_keys() -> None:
        await keys.load(database)

    async def load_cleared() -> None:
        seen = await database.run(generations.read, write=False)
        if (cache := current.parts.response_cache) is not None:
            await cache.learn(seen)
        else:
            cleared.learn(seen)

    async def follow() -> None:
        loads = {"keys": load_keys, generations.TOPIC: load_cleared}
        if follower is None:
            loads["endpoints"] = load_endpoints
        async for topic in Watch(database, loads):
            await _until_done(loads[topic])

    await load_keys()
    await ledger.load(settings.budgets)
    await load_cleared()
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
        export.start()
        tasks.start(follow(), name="follow")
        gates.start(tasks, lambda: in_force.gateway.drain_s if readiness.draining else None)
        if follower is not None:
            tasks.start(follower.run(), name="registry")
        if home is not None and (settings.gateway.workers > 1 or owners.VARIABLE in os.environ):
            metrics.combined = combined = Combined(metrics.registry, home.figures)
            if settings.gateway.workers > 1:  # whoever is asked shows what the others have written
                tasks.every(_FIGURES_S, lambda: asyncio.to_thread(combined.write), name="figures")
        trust_issuers()
        if source is not None:
            trouble: dict[str, str] = {}
            Telling(lambda: trouble).start(tasks)
            tell = partial(_tell, source=source, readiness=readiness, parts=parts, trouble=trouble)
            watcher = Watcher(reload, Source(source, partial(_listening_as, settings)), tell)
            tasks.every(look_s, watcher.look, name="configuration")
        try:
            yield create(current, Scores(database, requests), readiness, in_force, database), readiness
        finally:
            await identity.close()
            await flights.close()
            await parts.grounds.tasks.close()
            await router.close()
            asking.close()
            audit.administer("gateway.stop", process, actor=operator())
            await asyncio.gather(requests.close(), ledger.close(), audit.close(), traces.close())
            await asyncio.to_thread(export.close)
            if counters is not None:
                await counters.close()
            if redis is not None:
                await redis.aclose()
            if follower is not None:
                await follower.close()
            if metrics.combined is not None:
                metrics.combined.end()


def _knowledge(reload: Reload, home: Home | None, connections: Connections) -> Knowledge:
    """The owners of the documents that our supervisor keeps running; without one there are no collections."""
    places = places_of(os.environ.get(owners.VARIABLE, ""))
    return Knowledge(
        connections,
        places[0] if places else [],
        os.environ.get(TOKEN_VARIABLE, ""),
        expected=lambda: home is None or owners.any_collections(reload.settings, home),
        start=partial(own, home) if home is not None else None,
    )


def _adopt(view: View, audit: AuditLog, endpoints: list[Endpoint]) -> None:
    """Takes over the endpoints of etcd. Nobody here wrote them, so what has changed is noted here; each gateway notes
    what it sees. How an endpoint is doing (`state`) is no change of it."""
    before = {each.endpoint_id: replace(each, state="ready") for each in view.all()}
    after = {each.endpoint_id: replace(each, state="ready") for each in endpoints}
    view.load(endpoints)
    changes = {
        "new": sorted(after.keys() - before.keys()),
        "gone": sorted(before.keys() - after.keys()),
        "changed": sorted(name for name in after.keys() & before.keys() if after[name] != before[name]),
    }
    if told := "; ".join(f"{what}: {', '.join(names)}" for what, names in changes.items() if names):
        audit.administer("registry.change", told, actor="etcd")


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


def _listening_as(started: Settings, settings: Settings) -> Settings:
    """With the address that we have: options of `parkway up` may have changed it, and it cannot change now."""
    address = {"host": started.gateway.host, "port": started.gateway.port}
    return settings.model_copy(update={"gateway": settings.gateway.model_copy(update=address)})


def _tell(outcome: Outcome, source: Path, readiness: Readiness, parts: Parts, trouble: dict[str, str]) -> None:
    """Says what came of a change of the configuration, to whoever looks."""
    parts.metrics.configuration_valid.set(outcome.error is None)
    trouble.clear()
    if outcome.error is not None:
        trouble[CONFIGURATION] = refusal(outcome.error, source)
        # Without the reason, which may quote the file; likewise below.
        parts.audit.administer("configuration.reload", str(source), actor=operator(), outcome=ConfigurationError.code)
        log.error("%s cannot be used, so what was in force stays in force:\n%s", source, outcome.error)
        readiness.warnings["configuration"] = (
            "the configuration as it is written now cannot be used, and an earlier one is in force; "
            "the gateway's log says why"
        )
        return
    readiness.warnings.pop("configuration", None)
    log.warning("%s was read again; changed: %s", source, ", ".join(outcome.changed) or "nothing")
    parts.audit.administer("configuration.reload", ", ".join(outcome.changed), actor=operator())
    if outcome.pending:
        log.warning("takes effect at the next start: %s", ", ".join(outcome.pending))


def _response_cache(
    config: ResponseCacheConfig,
    *,
    cleared: Generations,
    view: View,
    router: Router,
    redis: Redis | None,
    prefix: str,
    before: ResponseCache | None = None,
) -> ResponseCache | None:
    """The response cache, if there is to be one; it takes over the shelf of the one `before` where that is the same."""
    if config.keep == "nothing":
        return None
    if before is not None and _shelved(before.config) == _shelved(config):
        return ResponseCache(config, before.shelf, cleared, view.upstream_models, Embedding(router))
    shelf: Shelf = MemoryShelf(config.max_bytes, config.ttl_s)
    if config.place == "redis" and redis is not None:
        shelf = RedisShelf(
            redis,
            prefix=prefix,
            ttl_s=config.ttl_s,
            timeout_s=config.redis_timeout_s,
            max_bytes=config.max_answer_bytes,
        )
    return ResponseCache(config, shelf, cleared, view.upstream_models, Embedding(router))


def _shelved(config: ResponseCacheConfig) -> tuple[object, ...]:
    """What a shelf is made of."""
    return config.place, config.max_bytes, config.ttl_s, config.max_answer_bytes, config.redis_timeout_s


async def _until_done(load: Callable[[], Awaitable[None]]) -> None:
    """Loads what has changed. A store that fails in between must not cost the change: the old view stays until then."""
    while True:
        try:
            return await load()
        except StoreUnavailable:
            await asyncio.sleep(_STORE_PAUSE_S)
