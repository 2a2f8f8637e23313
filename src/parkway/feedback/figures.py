"""Figures that every request changes: plain numbers, which become Prometheus's metrics when somebody scrapes.

prometheus_client's own metrics take a lock for each change, a microsecond each time. These belong to the event loop,
need none, and look the same on the page; a scrape may read them from any thread.
"""

from __future__ import annotations

import math
import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client import Counter as PrometheusCounter
from prometheus_client.core import Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

# Whether the page says when each series began, which is prometheus_client's own setting.
_CREATED = any(
    "created" in each.name for each in next(iter(PrometheusCounter("_", "", registry=None).collect())).samples
)


class Count:
    """A number that only grows."""

    __slots__ = ("created", "value")

    def __init__(self) -> None:
        self.value = 0
        self.created = time.time()


class Spread:
    """How values are spread over buckets; `bounds` are the highest values of each, the last one infinite."""

    __slots__ = ("bounds", "counts", "created", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * len(bounds)
        self.sum = 0.0
        self.created = time.time()

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


class Level(Collector):
    """How much there is of something now; as a context, one more for as long as it lasts."""

    def __init__(self, name: str, help: str, registry: CollectorRegistry) -> None:
        self._name = name
        self._help = help
        self.value = 0
        registry.register(self)

    def __enter__(self) -> None:
        self.value += 1

    def __exit__(self, *_: object) -> None:
        self.value -= 1

    def collect(self) -> Iterator[Metric]:
        metric = Metric(self._name, self._help, "gauge")
        metric.add_sample(self._name, {}, self.value)
        yield metric


class Counts(Collector):
    """Counts of one name by their labels."""

    def __init__(self, name: str, help: str, labels: tuple[str, ...], registry: CollectorRegistry) -> None:
        self._name = name
        self._help = help
        self._labels = labels
        self._series: dict[tuple[str, ...], Count] = {}
        registry.register(self)

    def labels(self, *values: str) -> Count:
        """The count under these values of the labels; who asks bounds how many there can be."""
        return self._series.setdefault(values, Count())

    def collect(self) -> Iterator[Metric]:
        metric = Metric(self._name, self._help, "counter")
        for values, count in list(self._series.items()):
            labels = dict(zip(self._labels, values, strict=True))
            metric.add_sample(f"{self._name}_total", labels, count.value)
            if _CREATED:
                metric.add_sample(f"{self._name}_created", labels, count.created)
        yield metric


class Spreads(Collector):
    """Spreads of one name by their labels.

    Args:
        buckets: The highest value of each, in order; one more takes what is above them.
    """

    def __init__(
        self, name: str, help: str, labels: tuple[str, ...], buckets: Sequence[float], registry: CollectorRegistry
    ) -> None:
        self._name = name
        self._help = help
        self._labels = labels
        self._bounds = (*buckets, math.inf)
        self._texts = tuple(map(floatToGoString, self._bounds))
        self._series: dict[tuple[str, ...], Spread] = {}
        registry.register(self)

    def labels(self, *values: str) -> Spread:
        """The spread under these values of the labels; who asks bounds how many there can be."""
        return self._series.setdefault(values, Spread(self._bounds))

    def collect(self) -> Iterator[Metric]:
        metric = Metric(self._name, self._help, "histogram")
        for values, spread in list(self._series.items()):
            labels = dict(zip(self._labels, values, strict=True))
            up_to = list(accumulate(spread.counts))
            for bound, count in zip(self._texts, up_to, strict=True):
                metric.add_sample(f"{self._name}_bucket", {**labels, "le": bound}, count)
            metric.add_sample(f"{self._name}_count", labels, up_to[-1])
            metric.add_sample(f"{self._name}_sum", labels, spread.sum)
            if _CREATED:
                metric.add_sample(f"{self._name}_created", labels, spread.created)
        yield metric
