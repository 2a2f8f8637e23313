"""The engines of this machine: one child for each replica of each model that has a directory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal
from urllib.parse import urlsplit

from parkway.core.errors import ConfigurationError, ModelFilesError, StartupError
from parkway.core.tasks import Tasks
from parkway.engine.config import EngineConfig
from parkway.launch.adapters import adapter_options
from parkway.launch.child import Child, Say, State
from parkway.launch.control import ModelState
from parkway.launch.family import Family
from parkway.launch.liveness import Address, watch
from parkway.launch.memory import Need, need_of, resident_bytes
from parkway.launch.probe import activity
from parkway.launch.publication import Publication
from parkway.launch.settings import EndpointConfig, ModelConfig, Settings
from parkway.router.endpoint import Endpoint, EndpointState
from parkway.store.models import readable_bytes

TOKEN_VARIABLE = "PARKWAY_ENGINE_TOKEN"  # noqa: S105 - the variable's name; the token is drawn at each start
"""Holds the token that engines ask for, so that nobody else on the machine can use them past the gateway."""

NOT_STARTED = "http://not-started.invalid/v1"
"""The address of what does not serve."""

SHOWN: Mapping[State, Literal["loading", "ready", "down", "given up"]] = {
    "starting": "loading",
    "ready": "ready",
    "waiting": "down",
    "given up": "given up",
    "stopped": "down",
}
"""The states of a process as people are told of them."""


@dataclass(frozen=True, slots=True)
class Engine:
    """One replica: the model that it serves, and the process that does.

    Args:
        need: What it may use at most; None where the files of the model cannot be read.
    """

    model: str
    child: Child
    need: Need | None
    served: list[Address]  # where it serves; empty while it does not
    changed: list[float]  # when its state last changed, in seconds of the monotonic clock

    def address(self) -> Address | None:
        return self.served[0] if self.served else None

    def charged_bytes(self) -> int:
        """What counts against the limit: what is needed while it starts, then what is used."""
        if self.child.state in ("given up", "stopped"):
            return 0
        used = self.used_bytes() if self.child.state == "ready" else None
        return used if used is not None else self.need.least_bytes if self.need else 0

    def used_bytes(self) -> int | None:
        """Resident memory; None while there is no process."""
        return resident_bytes(self.child.pid) if self.child.pid is not None else None


class Engines:
    """Starts the engines that the configuration asks for, and publishes which of them can be asked.

    An engine that is not up is published as `down`: its callers learn that the model is unavailable for now. One that
    can never start is not published at all.

    Args:
        token: What engines ask of their clients.
    """

    def __init__(self, settings: Settings, family: Family, publication: Publication, token: str, say: Say) -> None:
        self._family = family
        self._publication = publication
        self._say = say
        self._remote = {name for name, model in settings.models.items() if any(place.url for place in model.all())}
        self._others = bool(settings.models_on_demand())
        self._settings = settings
        self._liveness_s = settings.liveness_s
        self._token = token
        self._engines = [
            self._engine(name, number, place)
            for name, model in settings.models.items()
            if model.load == "start"
            for number, place in enumerate(_replicas(model))
        ]

    @property
    def children(self) -> list[Child]:
        return [engine.child for engine in self._engines]

    def start(self, tasks: Tasks) -> None:
        for engine in self._engines:
            name = engine.child.program.name
            tasks.start(engine.child.run(), name=name)
            tasks.start(watch(engine.child, engine.address, self._liveness_s), name=f"{name} liveness")

    def waits_for(self, reasons: Iterable[str]) -> bool:
        """Whether any of the gateway's reasons for not being ready may still go away.

        A model that is given up stays away, and the others need not wait for it.
        """
        lost = self._lost()
        return any(not any(f'"{model}"' in reason for model in lost) for reason in reasons)

    def check_any_left(self) -> None:
        """Sees that there is still something to serve.

        Raises:
            StartupError: Every engine is given up, no model has another endpoint, and none is loaded on demand.
        """
        if (
            self._engines
            and not self._remote
            and not self._others
            and len(self._lost()) == len({engine.model for engine in self._engines})
        ):
            reasons = "\n".join(f"{engine.model}: {engine.child.reason}" for engine in self._engines)
            raise StartupError(f"no model can be served\n{reasons}")

    def charged_bytes(self) -> int:
        """What counts against the limit of all engines together."""
        return sum(engine.charged_bytes() for engine in self._engines)

    def check_fit(self, limit_bytes: int, beside_bytes: int = 0) -> None:
        """Sees that the models fit into the memory that they may use, at least without their caches.

        Args:
            beside_bytes: What the owners of documents need.

        Raises:
            ConfigurationError: They do not; the message has the numbers and what would help.
        """
        needed = sum(engine.need.least_bytes for engine in self._engines if engine.need)
        if needed and needed + beside_bytes > limit_bytes:
            beside = f", beside {readable_bytes(beside_bytes)} for documents" if beside_bytes else ""
            each = "; ".join(f"{engine.model} {engine.need}" for engine in self._engines if engine.need)
            raise ConfigurationError(
                f"memory_bytes: the models that are loaded at the start need {readable_bytes(needed)} without their "
                f"caches{beside}, and may use {readable_bytes(limit_bytes)}. What helps: `load: on_demand` for some "
                f"of them, `engine.quantization: int8`, a larger `memory_bytes`. They need: {each}"
            )

    async def states(self) -> list[ModelState]:
        """Each engine as `parkway ps` shows it."""
        found = await asyncio.gather(*(_activity(engine, self._token) for engine in self._engines))
        return [_state(engine, requests) for engine, requests in zip(self._engines, found, strict=True)]

    def _lost(self) -> set[str]:
        """The models that nothing serves nor will."""
        hopeful = {engine.model for engine in self._engines if engine.child.state != "given up"}
        return {engine.model for engine in self._engines} - hopeful - self._remote

    def _engine(self, model: str, number: int, place: EndpointConfig) -> Engine:
        down = unstarted(model, number, place.adapters, "down", place.weight)
        name = f"engine {down[0].endpoint_id if number else model}"

        served: list[Address] = []
        since = [time.monotonic()]

        def changed(state: State, address: str) -> None:
            served.clear()
            since[0] = time.monotonic()
            if state == "ready":
                served.append(_place(address))
                self._publication.put(*(replace(each, url=f"{address}/v1", state="ready") for each in down))
                self._say(f"{name} is ready at {address}")
            elif state == "given up":
                self._publication.remove(*(each.endpoint_id for each in down))
            else:
                self._publication.put(*down)

        options = ("--model", str(place.path), "--name", model, "--port", "0", *adapter_options(place.adapters))
        config = engine_options(self._settings.engine_of(place))
        child = self._family.child(name, "engine", *options, *config, announces=True, on_change=changed)
        self._publication.put(*down)
        return Engine(model, child, self._need(place), served, since)

    def _need(self, place: EndpointConfig) -> Need | None:
        try:
            return need_of(str(place.path), self._settings.engine_of(place), place.adapters.values())
        except ModelFilesError:
            return None  # its engine will say so


async def _activity(engine: Engine, token: str) -> int:
    """The answers that run or wait in an engine; 0 where it does not say."""
    address = engine.address()
    found = await activity(*address, token) if address is not None else None
    return found.requests if found is not None else 0


def _state(engine: Engine, requests: int) -> ModelState:
    state = SHOWN[engine.child.state]
    return ModelState(
        name=engine.child.program.name.removeprefix("engine "),
        state=state,
        load="start",
        memory_bytes=engine.used_bytes(),
        needs_bytes=engine.need.total_bytes if engine.need else None,
        since_s=time.monotonic() - engine.changed[0],
        requests=requests,
        reason=engine.child.reason or None,
    )


def _place(url: str) -> Address:
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or 80


def _replicas(model: ModelConfig) -> list[EndpointConfig]:
    """The local places of a model, each as often as it has replicas."""
    return [place for place in model.all() if place.path for _ in range(place.replicas)]


def unstarted(
    model: str, number: int, adapters: Iterable[str], state: EndpointState, weight: int = 1
) -> Sequence[Endpoint]:
    """What an engine is published as while nothing serves it: its model, and each adapter as a model of its own.

    Args:
        number: Tells the engines of one model apart.
    """
    return [
        Endpoint(
            endpoint_id=f"{name}#{number}",
            model=name,
            url=NOT_STARTED,
            upstream_model=name,
            weight=weight,
            state=state,
            api_key_env=TOKEN_VARIABLE,
            source="local",
        )
        for name in (model, *(f"{model}:{adapter}" for adapter in adapters))
    ]


def engine_options(config: EngineConfig) -> list[str]:
    """What was configured for an engine, as options of `parkway engine`."""
    section = config.model_dump(exclude_unset=True)
    return [part for key, value in section.items() if value is not None for part in ("--set", f"{key}={value}")]
