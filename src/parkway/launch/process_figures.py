"""What a process that has documents adds to `/metrics`: a file of its figures, which gateways add up with their own."""

from __future__ import annotations

import asyncio

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from parkway.core.tasks import Tasks
from parkway.feedback.combined import Combined
from parkway.retrieval.kept import Tally
from parkway.store.home import Home

_WRITE_S = 2.0


class ProcessFigures(Collector):
    """Of an owner or a replica, which say what there is to `collect`."""

    def __init__(self, home: Home) -> None:
        registry = CollectorRegistry()
        registry.register(self)
        self._combined = Combined(registry, home.figures)

    def start(self, tasks: Tasks) -> None:
        tasks.every(_WRITE_S, lambda: asyncio.to_thread(self._combined.write), name="figures")

    def end(self) -> None:
        """Leaves what was counted to those that come after."""
        self._combined.end()


def of_caches(results: Tally, vectors: Tally) -> CounterMetricFamily:
    """Of searches, and of the vectors of queries."""
    family = CounterMetricFamily(
        "parkway_knowledge_cache",
        "What of documents was there already, or had to be made",
        labels=("cache", "result"),
    )
    for name, tally in (("results", results), ("vectors", vectors)):
        family.add_metric((name, "hit"), tally.hits)
        family.add_metric((name, "miss"), tally.misses)
    return family
