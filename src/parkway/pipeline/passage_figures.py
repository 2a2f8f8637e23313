"""How often a passage that an answer was held against had been read before, for `/metrics`."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from parkway.aggregate.grounding.support import source_of


class PassageFigures(Collector):
    """The gateway's share of the figures of what is kept of documents; their owners have the rest."""

    def collect(self) -> Iterator[Metric]:
        known = source_of.cache_info()
        family = CounterMetricFamily(
            "parkway_knowledge_cache",
            "What of documents was there already, or had to be made",
            labels=("cache", "result"),
        )
        family.add_metric(("passages", "hit"), known.hits)
        family.add_metric(("passages", "miss"), known.misses)
        yield family
