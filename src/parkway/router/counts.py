"""What the router has done beyond sending each request once, counted for the metrics."""

from __future__ import annotations

from collections import Counter

MAX_MODELS = 1000
"""Models with counts of their own in the life of a process; those beyond it count together."""

OTHERS = "others"


class Counts:
    """How often something happened, by what it was and the model."""

    def __init__(self) -> None:
        self._models: set[str] = set()
        self._counts: Counter[tuple[str, str]] = Counter()

    def add(self, what: str, model: str) -> None:
        """Counts one `what`: `retries`, `fallbacks`, `hedges`, or `ejections_` and the reason."""
        if model not in self._models:
            if len(self._models) >= MAX_MODELS:
                model = OTHERS
            else:
                self._models.add(model)
        self._counts[what, model] += 1

    def of(self, what: str) -> dict[str, int]:
        """The counts of `what` by model."""
        return {model: number for (name, model), number in self._counts.items() if name == what}
