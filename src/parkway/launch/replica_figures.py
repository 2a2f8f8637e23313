"""What a replica adds to `/metrics`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client.core import GaugeMetricFamily, Metric

from parkway.launch.process_figures import ProcessFigures, of_caches
from parkway.retrieval.kept import Tally
from parkway.store.home import Home


class ReplicaFigures(ProcessFigures):
    """Of one replica.

    Args:
        number: Its own.
        results, vectors: How often a search, and the vector of a query, was there already.
        lags_s: How far its copies of each partition are behind.
    """

    def __init__(
        self, number: int, results: Tally, vectors: Tally, lags_s: Callable[[], Mapping[int, float]], home: Home
    ) -> None:
        self._number = number
        self._results = results
        self._vectors = vectors
        self._lags_s = lags_s
        super().__init__(home)

    def collect(self) -> Iterator[Metric]:
        yield of_caches(self._results, self._vectors)
        lags = GaugeMetricFamily(
            "parkway_knowledge_replica_lag_seconds",
            "How far the copies that a replica has of a partition are behind: of its collections, the furthest",
            labels=("replica", "partition"),
        )
        for partition, lag_s in self._lags_s().items():
            lags.add_metric((str(self._number), str(partition)), lag_s)
        yield lags
