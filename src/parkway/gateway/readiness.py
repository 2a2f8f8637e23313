"""Whether the gateway would answer a request now."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from parkway.router.router import Router


@dataclass(slots=True)
class Readiness:
    """What `/readyz` reports.

    Args:
        router: Its live view says which models have an endpoint.
        expected: Models that the configuration starts on this machine; ready means that each can be asked.
    """

    router: Router
    expected: Collection[str] = ()
    draining: bool = field(default=False)

    def reasons(self) -> list[str]:
        """Why the gateway is not ready; empty when it is."""
        if self.draining:
            return ["draining: the process is about to stop"]
        served = set(self.router.ready_models())
        return [f'model "{model}" has no endpoint yet' for model in self.expected if model not in served]
