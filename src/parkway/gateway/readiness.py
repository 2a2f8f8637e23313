"""Whether the gateway would answer a request now."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from parkway.router.view import View


@dataclass(slots=True)
class Readiness:
    """What `/readyz` reports.

    At start the gateway waits for every model of this machine. Later one model that is away makes only its own
    requests fail: to take the whole gateway out of service for it would take away the others, too.

    Args:
        view: Says which models have an endpoint.
        expected: Models that the configuration starts on this machine. One whose engine was given up has no
            endpoints in the view, and is not waited for.
    """

    view: View
    expected: Collection[str] = ()
    draining: bool = False
    started: bool = False
    warnings: dict[str, str] = field(default_factory=dict)
    """What is wrong although requests succeed, by the part that it is about. Anybody may read them."""

    def reasons(self) -> list[str]:
        """Why the gateway is not ready; empty when it is."""
        if self.draining:
            return ["draining: the process is about to stop"]
        published = any(endpoint.source == "local" for endpoint in self.view.all())
        missing = [
            model
            for model in self.expected
            if not self._served(model) and (self.view.endpoints(model) or not published)
        ]
        self.started = self.started or not missing
        if self.started and any(self._served(model) for model in self.view.models()):
            return []
        return [f'model "{model}" has no endpoint yet' for model in missing]

    def _served(self, model: str) -> bool:
        """Somebody can answer, or could as soon as the model is loaded."""
        return any(endpoint.state in ("ready", "asleep") for endpoint in self.view.endpoints(model))
