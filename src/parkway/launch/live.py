"""What a running gateway takes over of a changed configuration, part by part."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from functools import partial

from parkway.aggregate.conversations import Conversations
from parkway.aggregate.response_cache.cache import ResponseCache
from parkway.aggregate.response_cache.config import ResponseCacheConfig
from parkway.aggregate.responses import Responses
from parkway.feedback.otlp import Export
from parkway.gateway.config import GatewayConfig, InForce
from parkway.launch.intakes import intakes_of
from parkway.launch.reload import HOSTS, Commit, Reload, permission_files
from parkway.launch.settings import Settings
from parkway.pipeline.embedding import Embedding
from parkway.pipeline.parts import Current
from parkway.policy.guardrails.guardrails import Guardrails
from parkway.policy.shared_counters import SharedCounters
from parkway.router.admission.config import AdmissionConfig
from parkway.store.sql import Database

_OF_THE_PROCESS = ("host", "port", "workers")
"""Of the section `gateway`: what the supervisor has bound and started."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """The parts of a gateway that take other settings while it runs.

    Attributes:
        started: What the gateway and the engines were started with; engines stay what they are until the next start.
        cache_of: The response cache of another configuration; it keeps the answers of the present one where it can.
    """

    started: Settings
    database: Database
    current: Current
    in_force: InForce
    export: Export
    counters: SharedCounters | None
    cache_of: Callable[[ResponseCacheConfig], ResponseCache | None]

    def register(self, reload: Reload) -> None:
        """Has every part take its share of each change that `reload` finds.

        What a request takes from `Current` it keeps to its end. The router, the gates and the log are not replaced,
        since they hold what must survive (conditions, queues): they go by the new settings at the next thing they do.
        """
        parts = self.current.parts
        reload.register(lambda new: parts.identity.prepare(new.identity), "identity")
        reload.register(
            lambda new: partial(parts.permissions.replace, new.permissions.policies()),
            "permissions",
            files=permission_files,
        )
        reload.register(
            lambda new: partial(parts.limiter.replace, new.limits, new.budgets, new.prices()),
            "limits", "budgets", "models.*.price",
        )  # fmt: skip
        reload.register(self._outage, "limits.on_outage")
        reload.register(lambda new: partial(self.current.change, bounds=new.bounds), "bounds")
        reload.register(self._guardrails, "guardrails")
        reload.register(self._router, "router", "models.*.balance", "models.*.fallbacks", "models.*.accepts",
                        "models.*.max_concurrency", HOSTS)  # fmt: skip
        reload.register(
            self._admission, "admission", "models.*.admission", "router.connections_per_endpoint",
            "models.*.accepts", "models.*.max_concurrency",
        )  # fmt: skip
        reload.register(self._gateway, *_keys("gateway", GatewayConfig.model_fields, _OF_THE_PROCESS))
        reload.register(self._grounds, "grounding", "models.*.grounding")
        reload.register(lambda new: partial(parts.audit.replace, new.audit), "audit")
        reload.register(lambda new: partial(parts.log.replace, new.feedback), "feedback")
        reload.register(lambda new: partial(parts.traces.replace, new.traces), "traces")
        reload.register(lambda new: self.export.prepare(new.traces), "traces")
        reload.register(lambda _: lambda: None, "knowledge")  # which the owners of documents follow themselves
        reload.register(self._kept, "conversations", "responses")
        reload.register(self._response_cache, *_keys("response_cache", ResponseCacheConfig.model_fields, ("place",)))

    def _outage(self, new: Settings) -> Commit:
        def commit() -> None:
            if self.counters is not None:
                self.counters.on_outage = new.limits.on_outage

        return commit

    def _guardrails(self, new: Settings) -> Commit:
        parts = self.current.parts
        fresh = Guardrails(new.guardrails, embed=Embedding(parts.router), audit=parts.guardrails.audit)
        return partial(self.current.change, guardrails=fresh)

    def _grounds(self, new: Settings) -> Commit:
        fresh = replace(self.current.parts.grounds, config=new.grounding, models=new.grounded_models())
        return partial(self.current.change, grounds=fresh)

    def _router(self, new: Settings) -> Commit:
        return partial(
            self.current.parts.router.replace,
            new.router,
            balance=new.balance(),
            fallbacks=new.fallbacks(),
            intake_of=intakes_of(new, self.started),
        )

    def _admission(self, new: Settings) -> Commit:
        parts = self.current.parts

        def commit() -> None:
            parts.shaping.replace(new.admission)
            parts.gates.replace(
                shared_by(new.admission, self.started.gateway.workers),
                own={name: model.admission for name, model in new.models.items()},
                most_per_endpoint=new.router.connections_per_endpoint,
            )

        return commit

    def _gateway(self, new: Settings) -> Commit:
        def commit() -> None:
            self.in_force.gateway = new.gateway
            self.current.parts.flights.timeout_s = new.gateway.timeout_s

        return commit

    def _kept(self, new: Settings) -> Commit:
        return partial(
            self.current.change,
            conversations=Conversations(self.database, new.conversations),
            responses=Responses(self.database, new.responses),
        )

    def _response_cache(self, new: Settings) -> Commit:
        # Whether there is a Redis to keep answers in was decided at the start.
        place = {"place": self.started.response_cache.place}
        config = new.response_cache.model_copy(update=place)
        return partial(self.current.change, response_cache=self.cache_of(config))


def shared_by(admission: AdmissionConfig, workers: int) -> AdmissionConfig:
    """The section as each of so many gateway processes goes by it: all of them share the endpoints."""
    return admission.model_copy(update={"gateways": admission.gateways * workers})


def _keys(section: str, fields: Iterable[str], but: Collection[str]) -> list[str]:
    return [f"{section}.{field}" for field in fields if field not in but]
