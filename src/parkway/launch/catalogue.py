"""Which models can be loaded on demand: those that the configuration says so of, and those that were pulled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from parkway.engine.config import EngineConfig
from parkway.launch.adapters import adapter_options
from parkway.launch.child import Child, Say, State
from parkway.launch.engines import engine_options, unstarted
from parkway.launch.family import Family
from parkway.launch.on_demand import OnDemand
from parkway.launch.publication import Publication
from parkway.launch.settings import KEEP_ALIVE_S, EndpointConfig, Settings
from parkway.launch.sleeper import Sleeper
from parkway.store.home import Home
from parkway.store.models import PulledModel, PulledModels


class Catalogue:
    """Keeps `on_demand` in step with the configuration and with the folder of pulled models.

    Args:
        token: What engines ask of their clients.
    """

    def __init__(
        self,
        settings: Settings,
        home: Home,
        family: Family,
        publication: Publication,
        on_demand: OnDemand,
        token: str,
        say: Say,
    ) -> None:
        self._settings = settings
        self._pulled = PulledModels(home)
        self._family = family
        self._publication = publication
        self._on_demand = on_demand
        self._token = token
        self._say = say
        self._commits: dict[str, str] = {}
        for name, model in settings.models_on_demand().items():
            keep_alive_s = KEEP_ALIVE_S if model.keep_alive_s is None else model.keep_alive_s
            self._add(name, model, keep_alive_s)

    async def follow(self) -> None:
        """Takes in what was pulled or removed since the last time."""
        self.adopt(await asyncio.to_thread(self._pulled.list), tell=True)

    def adopt_pulled(self) -> None:
        """Takes in what is there at the start."""
        self.adopt(self._pulled.list(), tell=False)

    def adopt(self, pulled: Iterable[PulledModel], *, tell: bool) -> None:
        """Makes `pulled` all that was pulled, less what the configuration names by itself."""
        served = {Path(place.path) for model in self._settings.models.values() for place in model.all() if place.path}
        named = self._settings.models.keys() | self._settings.adapted_models()
        found = {model.name: model for model in pulled if model.name not in named and model.path not in served}
        for name in self._commits.keys() - found.keys():
            del self._commits[name]
            self._on_demand.dismiss(name)
            self._say(f"{name} is gone")
        for name, model in found.items():
            known = self._commits.get(name)
            # One that was removed a moment ago may still be finishing its answers; then it is for the next time.
            if known is None and name not in self._on_demand.names():
                self._add(name, EndpointConfig(path=str(model.path)), KEEP_ALIVE_S)
                self._commits[name] = model.manifest.commit
                if tell:
                    self._say(f"{name} was pulled and can be used")
            elif known is not None and known != model.manifest.commit:
                self._on_demand.renew(name)
                self._commits[name] = model.manifest.commit

    def _add(self, name: str, place: EndpointConfig, keep_alive_s: float) -> None:
        self._on_demand.add(
            Sleeper(
                name,
                str(place.path),
                keep_alive_s,
                config=self._settings.engine_of(place),
                adapters=place.adapters,
                asleep=unstarted(name, 0, place.adapters, "asleep"),
                token=self._token,
                start=self._start,
                end=self._family.forget,
                publication=self._publication,
                liveness_s=self._settings.liveness_s,
            )
        )

    def _start(
        self,
        name: str,
        path: str,
        config: EngineConfig,
        adapters: Mapping[str, str],
        changed: Callable[[State, str], None],
    ) -> Child:
        options = ("--model", path, "--name", name, "--port", "0", *adapter_options(adapters))
        return self._family.child(
            f"engine {name}", "engine", *options, *engine_options(config), announces=True, on_change=changed, once=True
        )
