"""What an owner adds to `/metrics`: figures of its partition."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from parkway.core.errors import StoreUnavailable
from parkway.launch.open_collections import OpenCollections
from parkway.launch.process_figures import ProcessFigures, of_caches
from parkway.retrieval.catalogue import Partition
from parkway.retrieval.listing import Count, Listing
from parkway.store.home import Home

log = logging.getLogger(__name__)

MAX_COLLECTIONS = 100
"""That have series of their own, the first in the order of their names; all others are one, `other`."""

_OTHER = "other"
_REST = 50.0
"""Times as long as it has taken, documents are not counted again: a million take a second."""


class OwnerFigures(ProcessFigures):
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
        super().__init__(home)

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
        yield of_caches(self._opened.results, self._opened.vectors)
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
