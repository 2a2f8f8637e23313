"""What an owner adds to `/metrics`: figures of its partition, in a file that gateways add up with their own."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from parkway.core.errors import StoreUnavailable
from parkway.core.tasks import Tasks
from parkway.feedback.combined import Combined
from parkway.launch.open_collections import OpenCollections
from parkway.retrieval.catalogue import Partition
from parkway.retrieval.listing import Count, Listing
from parkway.store.home import Home

log = logging.getLogger(__name__)

MAX_COLLECTIONS = 100
"""That have series of their own, the first in the order of their names; all others are one, `other`."""

_OTHER = "other"
_WRITE_S = 2.0
_REST = 50.0
"""Times as long as it has taken, documents are not counted again: a million take a second."""


class OwnerFigures(Collector):
    """Of one owner.

    Args:
        valid: Whether the configuration can be used as it is written now.
    """

    def __init__(
        self, opened: OpenCollections, listing: Listing, share: Partition, home: Home, valid: Callable[[], bool]
    ) -> None:
        self._opened = opened
        self._listing = listing
        self._share = share
        self._valid = valid
        self._counts: list[Count] = []
        self._count_at = 0.0
        registry = CollectorRegistry()
        registry.register(self)
        self._combined = Combined(registry, home.figures)

    def start(self, tasks: Tasks) -> None:
        tasks.every(_WRITE_S, lambda: asyncio.to_thread(self._combined.write), name="figures")

    def end(self) -> None:
        """Leaves what was counted to those that come after."""
        self._combined.end()

    def collect(self) -> Iterator[Metric]:
        yield from self._how_many()
        failures = CounterMetricFamily(
            "parkway_ingestion_failures",
            "Documents that could not be taken in: set aside until they change, or postponed",
            labels=("result",),
        )
        failures.add_metric(("set_aside",), self._opened.failures.set_aside)
        failures.add_metric(("postponed",), self._opened.failures.postponed)
        yield failures
        cache = CounterMetricFamily(
            "parkway_knowledge_cache",
            "What of documents was there already, or had to be made",
            labels=("cache", "result"),
        )
        for name, tally in (("results", self._opened.results), ("vectors", self._opened.vectors)):
            cache.add_metric((name, "hit"), tally.hits)
            cache.add_metric((name, "miss"), tally.misses)
        yield cache
        yield GaugeMetricFamily(
            "parkway_configuration_valid",
            "1; 0 while the configuration as it is written now cannot be used and an earlier one is in force",
            value=float(self._valid()),
        )

    def _how_many(self) -> Iterator[Metric]:
        began = time.monotonic()
        if began >= self._count_at:
            try:
                self._counts = self._listing.counts(self._share)
            except StoreUnavailable as error:
                log.warning("documents cannot be counted: %s", error.message)
            self._count_at = time.monotonic() + _REST * (time.monotonic() - began)
        added: dict[tuple[str, str], tuple[int, int]] = {}
        own = set(sorted({each.collection for each in self._counts})[:MAX_COLLECTIONS])
        for each in self._counts:
            labels = (each.collection if each.collection in own else _OTHER, each.state)
            documents, passages = added.get(labels, (0, 0))
            added[labels] = documents + each.documents, passages + each.passages
        for at, (name, help) in enumerate(
            (
                ("parkway_documents", "Documents of collections, by state"),
                ("parkway_passages", "Passages of theirs that are in the index, by the state of their document"),
            )
        ):
            family = GaugeMetricFamily(name, help, labels=("collection", "state"))
            for labels, counts in added.items():
                family.add_metric(labels, counts[at])
            yield family
