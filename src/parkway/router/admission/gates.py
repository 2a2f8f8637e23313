"""The gates of all models."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from parkway.core.tasks import Tasks
from parkway.router.admission.config import AdmissionConfig, GateConfig
from parkway.router.admission.gate import Gate
from parkway.router.intake import Intake

REFRESH_S = 0.25
"""How soon a gate notices that an endpoint has come or gone."""

Intakes = Callable[[str], Sequence[Intake] | None]
"""What those endpoints of a model take that can answer now, or once they are awake; None if nobody serves it."""


class Gates:
    """A gate for each model, and for each of its pools: the endpoints that take prompts of the same lengths.

    Args:
        intakes: Asked at a model's first request and every `REFRESH_S` from then on.
        own: The gates that differ from what `config` says for all, by model.
        shared: Models that are served by the endpoints of another one: its name.
        most_per_endpoint: What no endpoint takes more than.
    """

    def __init__(
        self,
        config: AdmissionConfig,
        intakes: Intakes,
        *,
        own: Mapping[str, GateConfig] | None = None,
        shared: Mapping[str, str] | None = None,
        most_per_endpoint: int = 1024,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._intakes = intakes
        self._own = own or {}
        self._shared = shared or {}
        self._most = most_per_endpoint
        self._clock = clock
        self._classes = [(name, each.weight) for name, each in config.known_classes.items()]
        self._gates: dict[str, list[tuple[Intake, Gate]]] = {}

    def replace(
        self, config: AdmissionConfig, *, own: Mapping[str, GateConfig] | None = None, most_per_endpoint: int = 1024
    ) -> None:
        """Another configuration from now on, for those who wait too: see `Gate.replace`."""
        self._config, self._own, self._most = config, own or {}, most_per_endpoint
        self._classes = [(name, each.weight) for name, each in config.known_classes.items()]
        for model, pools in self._gates.items():
            of_model = config.of_model(self._own.get(model, GateConfig()))
            for _, gate in pools:
                gate.replace(of_model, self._classes, config.default_class, config.initial_concurrency)
        self.refresh()

    def __iter__(self) -> Iterator[tuple[str, Gate]]:
        """Every gate, with the name of its model and, where that has several, of its pool."""
        for model, pools in self._gates.items():
            for intake, gate in pools:
                yield (model if len(pools) == 1 else f"{model} ({_lengths(intake)})"), gate

    def find(self, model: str, prompt_tokens: int) -> Gate | None:
        """The gate for a prompt of this length; None where there is nothing to wait for: the router says why."""
        model = self._shared.get(model, model)
        pools = self._gates.get(model)
        if pools is None:
            pools = self._open(model)
        if len(pools) == 1:
            return pools[0][1]
        for intake, gate in pools:
            if intake.takes(prompt_tokens):
                return gate
        return None

    def start(self, tasks: Tasks, drains_in_s: Callable[[], float | None]) -> None:
        """Follows the endpoints.

        Args:
            drains_in_s: Not None once the process is about to stop: how long what runs may go on from then.
        """
        ends: list[float] = []

        async def follow() -> None:
            self.refresh()
            within_s = drains_in_s()
            if within_s is not None:
                ends.append(self._clock() + within_s)
                self.drain(ends[0] - self._clock())
                del ends[1:]

        tasks.every(REFRESH_S, follow, name="gates")

    def refresh(self) -> None:
        """Asks again what the endpoints take, and forgets the gates of models that are gone."""
        for model, pools in list(self._gates.items()):
            intakes = self._intakes(model)
            idle = not any(gate.running or gate.waiting for _, gate in pools)
            if idle and (intakes is None or {_pool(each) for each in intakes} - {pool for pool, _ in pools}):
                del self._gates[model]
                continue
            for pool, gate in pools:
                self._set_capacity(model, pool, gate, intakes or ())

    def drain(self, within_s: float) -> None:
        """The process stops after `within_s`: whose turn would come later is told so now."""
        for _, gate in self:
            gate.drain(within_s)

    def _open(self, model: str) -> list[tuple[Intake, Gate]]:
        intakes = self._intakes(model)
        if intakes is None:
            return []
        pools: list[tuple[Intake, Gate]] = []
        config = self._config.of_model(self._own.get(model, GateConfig()))
        for pool in dict.fromkeys(_pool(each) for each in intakes) or (Intake(),):
            gate = Gate(model, config, self._classes, self._config.initial_concurrency, self._clock)
            self._set_capacity(model, pool, gate, intakes)
            pools.append((pool, gate))
        self._gates[model] = pools
        return pools

    def _set_capacity(self, model: str, pool: Intake, gate: Gate, intakes: Sequence[Intake]) -> None:
        inside = [each for each in intakes if _pool(each) == pool]
        known = [each.max_concurrency for each in inside if each.max_concurrency is not None]
        total = sum(known) if len(known) == len(inside) else None
        configured = self._config.of_model(self._own.get(model, GateConfig())).max_concurrency
        if configured is not None:
            total = configured if total is None else min(configured, total)
        most = self._most * len(inside) if self._config.enabled else 0  # without admission nobody waits
        gate.set_capacity(self._part(total), self._part(most) or 0)

    def _part(self, total: int | None) -> int | None:
        """This process's part of what all endpoints take."""
        return total if not total else max(1, total // self._config.gateways)


def _pool(intake: Intake) -> Intake:
    """The pool of an endpoint: which prompts it takes."""
    if intake.max_concurrency is None:
        return intake
    return Intake(None, intake.min_prompt_tokens, intake.max_prompt_tokens)


def _lengths(intake: Intake) -> str:
    most = "" if intake.max_prompt_tokens is None else intake.max_prompt_tokens
    return f"{intake.min_prompt_tokens}-{most}"
