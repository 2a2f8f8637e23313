"""The figures of several processes as one."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.parser import text_string_to_metric_families

from parkway.feedback.combined import Combined


class Process:
    """Stands for one process with some figures."""

    def __init__(self, folder: Path, pid: int | None = None) -> None:
        registry = CollectorRegistry()
        self.requests = Counter("requests", "Requests", ("model",), registry=registry)
        self.running = Gauge("running", "Running now", registry=registry)
        self.connected = Gauge("parkway_registry_connected", "Whether", registry=registry)
        self.took = Histogram("took", "How long", buckets=(1.0,), registry=registry)
        self.combined = Combined(registry, folder)
        if pid is not None:
            self.combined._own = folder / f"{pid}.json"

    def shown(self) -> dict[str, float]:
        families = text_string_to_metric_families(self.combined.render().decode())
        return {
            sample.name + "".join(sample.labels.values()): sample.value
            for family in families
            for sample in family.samples
        }


def test_the_sum_of_all_whoever_is_asked(tmp_path: Path) -> None:
    one, two = Process(tmp_path), Process(tmp_path, os.getppid())
    one.requests.labels("a").inc(3)
    two.requests.labels("a").inc(4)
    two.requests.labels("b").inc()
    one.running.set(2)
    two.running.set(5)
    one.connected.set(1)
    two.connected.set(0)
    two.took.observe(0.5)
    one.took.observe(7)
    two.combined.write()
    expected = {
        "requests_totala": 7, "requests_totalb": 1, "running": 7, "parkway_registry_connected": 0,
        "took_bucket1.0": 1, "took_bucket+Inf": 2, "took_count": 2, "took_sum": 7.5,
    }  # fmt: skip
    assert one.shown() == expected
    assert two.shown() == expected


@pytest.mark.parametrize("killed", [False, True])
def test_what_was_counted_stays_when_a_process_ends(tmp_path: Path, killed: bool) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    one, two = Process(tmp_path), Process(tmp_path, gone.pid)
    one.requests.labels("a").inc(3)
    two.requests.labels("a").inc(4)
    two.running.set(5)
    two.combined.write()
    if not killed:
        two.combined.end()
    shown = one.shown()
    assert (shown["requests_totala"], shown["running"]) == (7, 0)
    Process(tmp_path)  # the next one to start takes over what the killed one left
    assert one.shown()["requests_totala"] == 7
    assert sorted(path.name for path in tmp_path.glob("*.json")) == sorted([f"{os.getpid()}.json", "ended.json"])


def test_a_file_of_another_version_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "ended.json").write_text('{"no": 1}')
    one = Process(tmp_path)
    one.requests.labels("a").inc()
    assert one.shown()["requests_totala"] == 1
