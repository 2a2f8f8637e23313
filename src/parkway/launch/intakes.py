"""What each endpoint of the configuration takes."""

from __future__ import annotations

from collections.abc import Callable

from parkway.launch.settings import EndpointConfig, Settings
from parkway.router.endpoint import Endpoint
from parkway.router.intake import ANYTHING, Intake

_AHEAD = 1.25
"""How many requests an engine gets for each that it can work on: the next is there when one ends."""


def intakes_of(settings: Settings, started: Settings | None = None) -> Callable[[Endpoint], Intake]:
    """Says of an endpoint what may be sent to it, by the id under which this configuration publishes it.

    An engine of ours takes what its batch holds and a few more; another server what is configured for it.

    Args:
        started: What the engines were started with, where `settings` came later.
    """
    started = started or settings
    intakes: dict[str, Intake] = {}
    for name, model in settings.models.items():
        for number, place in enumerate(model.all()):
            if place.url:
                intakes[f"{name}@{number}"] = _intake(place, place.max_concurrency)
    for name, model in started.models.items():
        engines = 0
        for place in model.all():
            if place.url:
                continue
            intake = _intake(place, _sequences(started.engine_of(place).max_sequences))
            for replica in range(engines, engines + place.replicas):
                intakes |= {f"{each}#{replica}": intake for each in (name, *(f"{name}:{a}" for a in place.adapters))}
            engines += place.replicas
    pulled = Intake(_sequences(started.engine.max_sequences))

    def intake_of(endpoint: Endpoint) -> Intake:
        return intakes.get(endpoint.endpoint_id, pulled if endpoint.source == "local" else ANYTHING)

    return intake_of


def _intake(place: EndpointConfig, max_concurrency: int | None) -> Intake:
    return Intake(max_concurrency, place.accepts.min_prompt_tokens, place.accepts.max_prompt_tokens)


def _sequences(most: int) -> int:
    return int(most * _AHEAD) + 1
