"""What `/metrics` shows of the queues."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from parkway.router.admission.gate import WAIT_BUCKETS_S
from parkway.router.admission.gates import Gates

_BOUNDS = [*(f"{bound:g}" for bound in WAIT_BUCKETS_S), "+Inf"]


class QueueFigures(Collector):
    """Reads the gates' own counts when somebody scrapes; nothing is counted twice.

    The labels are bounded: models have gates only if somebody serves them, classes stand in the configuration.
    """

    def __init__(self, gates: Gates) -> None:
        self._gates = gates

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily | HistogramMetricFamily]:
        limit = GaugeMetricFamily(
            "parkway_concurrency_limit", "Requests that a model is given at one moment", labels=["model"]
        )
        running = GaugeMetricFamily("parkway_admitted", "Requests that a model works on now", labels=["model"])
        waiting = GaugeMetricFamily(
            "parkway_queue_length", "Requests that wait for their turn now", labels=["model", "class"]
        )
        waits = HistogramMetricFamily(
            "parkway_queue_seconds", "How long requests waited for their turn that got it", labels=["model", "class"]
        )
        shed = CounterMetricFamily(
            "parkway_queue_shed", "Requests whose turn did not come, by why", labels=["model", "class", "reason"]
        )
        for model, gate in self._gates:
            if math.isfinite(gate.limit):
                limit.add_metric([model], gate.limit)
            running.add_metric([model], gate.running)
            for lane, (name, figures) in enumerate(zip(gate.classes, gate.figures, strict=True)):
                waiting.add_metric([model, name], gate.waiting_of(lane))
                counts = itertools.accumulate(figures.waits)
                waits.add_metric([model, name], list(zip(_BOUNDS, counts, strict=True)), figures.waited_s)
                for reason, count in figures.shed.items():
                    shed.add_metric([model, name, reason], count)
        yield from (limit, running, waiting, waits, shed)
