"""Whether the gateway would answer a request now."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from parkway.router.view import View


@dataclass(slots=True)
class Readiness:
    """What `/readyz` reports.

    Args:
        view: Says which models have an endpoint.
        expected: Models that the configuration starts on this machine; ready means that each can be asked.
    """

    view: View
    expected: Collection[str] = ()
    draining: bool = False

    def reasons(self) -> list[str]:
        """Why the gateway is not ready; empty when it is."""
        if self.draining:
            return ["draining: the process is about to stop"]
        return [f'model "{model}" has no endpoint yet' for model in self.expected if not self._served(model)]

    def _served(self, model: str) -> bool:
        return any(endpoint.state == "ready" for endpoint in self.view.endpoints(model))
