"""The engines of this machine: one child for each replica of each model that has a directory."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from parkway.core.errors import StartupError
from parkway.core.tasks import Tasks
from parkway.launch.child import Child, Say, State
from parkway.launch.family import Family
from parkway.launch.liveness import Address, watch
from parkway.launch.publication import Publication
from parkway.launch.settings import EndpointConfig, ModelConfig, Settings
from parkway.router.endpoint import Endpoint

TOKEN_VARIABLE = "PARKWAY_ENGINE_TOKEN"  # noqa: S105 - the variable's name; the token is drawn at each start
"""Holds the token that engines ask for, so that nobody else on the machine can use them past the gateway."""

_NOT_STARTED = "http://not-started.invalid/v1"


@dataclass(frozen=True, slots=True)
class Engine:
    """One replica: the model that it serves, and the process that does."""

    model: str
    child: Child
    served: list[Address]  # where it serves; empty while it does not

    def address(self) -> Address | None:
        return self.served[0] if self.served else None


class Engines:
    """Starts the engines that the configuration asks for, and publishes which of them can be asked.

    An engine that is not up is published as `down`: its callers learn that the model is unavailable for now. One that
    can never start is not published at all.
    """

    def __init__(self, settings: Settings, family: Family, publication: Publication, say: Say) -> None:
        self._family = family
        self._publication = publication
        self._say = say
        self._remote = {name for name, model in settings.models.items() if any(place.url for place in model.all())}
        self._shared = shared_options(settings)
        self._liveness_s = settings.liveness_s
        self._engines = [
            self._engine(name, number, place)
            for name, model in settings.models.items()
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
            StartupError: Every engine is given up and no model has another endpoint.
        """
        if self._engines and not self._remote and len(self._lost()) == len({engine.model for engine in self._engines}):
            reasons = "\n".join(f"{engine.model}: {engine.child.reason}" for engine in self._engines)
            raise StartupError(f"no model can be served\n{reasons}")

    def _lost(self) -> set[str]:
        """The models that nothing serves nor will."""
        hopeful = {engine.model for engine in self._engines if engine.child.state != "given up"}
        return {engine.model for engine in self._engines} - hopeful - self._remote

    def _engine(self, model: str, number: int, place: EndpointConfig) -> Engine:
        endpoint_id = f"{model}#{number}"
        down = Endpoint(
            endpoint_id=endpoint_id,
            model=model,
            url=_NOT_STARTED,
            upstream_model=model,
            weight=place.weight,
            state="down",
            api_key_env=TOKEN_VARIABLE,
            source="local",
        )
        name = f"engine {endpoint_id if number else model}"

        served: list[Address] = []

        def changed(state: State, address: str) -> None:
            served.clear()
            if state == "ready":
                served.append(_place(address))
                self._publication.put(replace(down, url=f"{address}/v1", state="ready"))
                self._say(f"{name} is ready at {address}")
            elif state == "given up":
                self._publication.remove(endpoint_id)
            else:
                self._publication.put(down)

        options = ("--model", str(place.path), "--name", model, "--port", "0", *self._shared)
        child = self._family.child(name, "engine", *options, announces=True, on_change=changed)
        self._publication.put(down)
        return Engine(model, child, served)


def _place(url: str) -> Address:
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or 80


def _replicas(model: ModelConfig) -> list[EndpointConfig]:
    """The local places of a model, each as often as it has replicas."""
    return [place for place in model.all() if place.path for _ in range(place.replicas)]


def shared_options(settings: Settings) -> list[str]:
    """The section `engine` of the configuration as options of `parkway engine`."""
    section = settings.engine.model_dump(exclude_unset=True)
    return [part for key, value in section.items() if value is not None for part in ("--set", f"{key}={value}")]
