"""Durations in buckets."""

from parkway.engine.latency import Latencies


def test_buckets_count_all_that_is_not_longer() -> None:
    latencies = Latencies((0.1, 1.0))
    for seconds in (0.05, 0.1, 0.5, 7.0):
        latencies.observe(seconds)
    assert latencies.buckets() == [("0.1", 2), ("1.0", 3), ("+Inf", 4)]
    assert latencies.sum_s == 7.65
