"""Our own figures look on the page like those of the client library."""

from __future__ import annotations

import prometheus_client
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest

from parkway.feedback import figures

BUCKETS = (0.01, 0.5, 1.0, 30.0)
VALUES = st.sampled_from(BUCKETS) | st.floats(0, 100, allow_nan=False)
SERIES = st.tuples(st.sampled_from(("a", 'quo"ted', "line\nbreak")), st.sampled_from(("chat", "rerank")), VALUES)


@settings(max_examples=60, deadline=None)
@given(st.lists(SERIES, max_size=20), st.integers(0, 3))
def test_the_page_is_that_of_the_client_library(changes: list[tuple[str, str, float]], level: int) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    labels = ("model", "surface")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("time.time", lambda: 1_760_000_000.25)
        own_level = figures.Level("level", "Now", ours)
        counts = figures.Counts("counts", "In all", labels, ours)
        spreads = figures.Spreads("spreads", "By size", labels, BUCKETS, ours)
        gauge = prometheus_client.Gauge("level", "Now", registry=theirs)
        counter = prometheus_client.Counter("counts", "In all", labels, registry=theirs)
        histogram = prometheus_client.Histogram("spreads", "By size", labels, buckets=BUCKETS, registry=theirs)
        for model, surface, value in changes:
            counts.labels(model, surface).value += round(value)
            counter.labels(model, surface).inc(round(value))
            spreads.labels(model, surface).add(value)
            histogram.labels(model, surface).observe(value)
    own_level.value = level
    gauge.set(level)
    assert generate_latest(ours) == generate_latest(theirs)
