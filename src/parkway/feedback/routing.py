"""What `/metrics` shows of the router: the condition of each endpoint, and what was done beyond sending once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

MAX_ENDPOINTS = 2000
"""Endpoints with a series of their own; whoever scrapes has to remember every one."""

_EJECTED_BY = ("failures", "outlier", "checks")


class RoutingFigures(Collector):
    """Reads the router's own state when somebody scrapes, so that requests pay nothing for it.

    Args:
        conditions: Model, endpoint and condition of every endpoint.
        counts: How often something happened, by model: `retries`, `fallbacks`, `hedges`, `ejections_` and the reason.
    """

    def __init__(
        self, conditions: Callable[[], Iterable[tuple[str, str, str]]], counts: Callable[[str], Mapping[str, int]]
    ) -> None:
        self._conditions = conditions
        self._counts = counts

    def collect(self) -> Iterator[Metric]:
        state = GaugeMetricFamily(
            "parkway_endpoint_state", "1 for the state in which an endpoint is", labels=("model", "endpoint", "state")
        )
        for labels in islice(self._conditions(), MAX_ENDPOINTS):
            state.add_metric(labels, 1)
        yield state
        for name, told in (
            ("retries", "Attempts beyond the first, of the same model"),
            ("fallbacks", "Times that another model was asked because this one could not answer"),
            ("hedges", "Second endpoints that were asked because the first was late"),
        ):
            counter = CounterMetricFamily(f"parkway_{name}", told, labels=("model",))
            for model, number in self._counts(name).items():
                counter.add_metric((model,), number)
            yield counter
        ejections = CounterMetricFamily(
            "parkway_ejections", "Endpoints that were taken out, by what did it", labels=("model", "reason")
        )
        for reason in _EJECTED_BY:
            for model, number in self._counts(f"ejections_{reason}").items():
                ejections.add_metric((model, reason), number)
        yield ejections
