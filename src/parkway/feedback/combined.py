"""The figures of several gateway processes as one: a scrape may reach any of them, and shows the sum of all.

Each process writes its own into a file now and then, and whenever it is asked; whoever is asked adds up the files.
What processes counted that have ended is kept in one more file, so that no counter goes back when one is replaced.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

_ENDED = "ended"
_COUNTED = frozenset({"counter", "histogram", "summary"})
_LEAST = ("_connected", "_valid")
"""How figures end that say yes or no: all have to agree. Of a start the latest counts; other gauges are added up."""

Labels = tuple[tuple[str, str], ...]


class Figures(msgspec.Struct, array_like=True):
    """One metric of one process: its samples by name and labels."""

    name: str
    type: str
    documentation: str
    samples: dict[str, list[tuple[Labels, float]]]


class Combined:
    """The figures of this process, beside those of the others that write into `folder`."""

    def __init__(self, registry: CollectorRegistry, folder: Path) -> None:
        self._registry = registry
        self._folder = folder
        self._own = folder / f"{os.getpid()}.json"
        self._writing = threading.Lock()
        self._ended = False
        folder.mkdir(mode=0o700, exist_ok=True)
        with self._locked(fcntl.LOCK_EX):
            for path in folder.glob("*.json"):
                if path.stem != _ENDED and not _runs(path):
                    self._keep_counts_of(path)

    def write(self) -> None:
        """Writes this process's figures; whole or not at all. Any thread may do it, until `end`."""
        with self._writing:
            if not self._ended:
                _write(self._own, [each for metric in self._registry.collect() if (each := _figures(metric)).samples])

    def render(self) -> bytes:
        """The sum, in the text format of Prometheus."""
        with self._locked(fcntl.LOCK_SH):
            # What is shown now has to be seen by whoever is asked next.
            self.write()
            files = [(path, _read(path)) for path in self._folder.glob("*.json")]
        added: dict[str, Figures] = {}
        for path, found in files:
            counted_only = path.stem == _ENDED or not _runs(path)
            _add(added, (each for each in found if not counted_only or each.type in _COUNTED))
        shown = CollectorRegistry()
        shown.register(_Shown(added.values()))
        return generate_latest(shown)

    def end(self) -> None:
        """Leaves what was counted to those that go on."""
        with self._locked(fcntl.LOCK_EX):
            self.write()
            with self._writing:
                self._ended = True
                self._keep_counts_of(self._own)

    def _keep_counts_of(self, path: Path) -> None:
        ended = self._folder / f"{_ENDED}.json"
        added: dict[str, Figures] = {}
        _add(added, _read(ended))
        _add(added, (each for each in _read(path) if each.type in _COUNTED))
        _write(ended, list(added.values()))
        path.unlink(missing_ok=True)

    @contextmanager
    def _locked(self, how: int) -> Iterator[None]:
        descriptor = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, how)
            yield
        finally:
            os.close(descriptor)


class _Shown(Collector):
    def __init__(self, figures: Iterable[Figures]) -> None:
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        for figures in self._figures:
            metric = Metric(figures.name, figures.documentation, figures.type)
            for name, samples in figures.samples.items():
                for labels, value in samples:
                    metric.add_sample(name, dict(labels), value)
            yield metric


def _figures(metric: Metric) -> Figures:
    samples: dict[str, list[tuple[Labels, float]]] = {}
    for sample in metric.samples:
        if not sample.name.endswith("_created"):  # which have no meaning in a sum
            samples.setdefault(sample.name, []).append((tuple(sample.labels.items()), sample.value))
    return Figures(metric.name, metric.type, metric.documentation, samples)


def _add(added: dict[str, Figures], found: Iterable[Figures]) -> None:
    """Adds one process's figures to those of the others."""
    for figures in found:
        known = added.setdefault(figures.name, Figures(figures.name, figures.type, figures.documentation, {}))
        for name, samples in figures.samples.items():
            values = dict(known.samples.get(name, ()))
            for labels, value in samples:
                values[labels] = _joined(name, values[labels], value) if labels in values else value
            known.samples[name] = list(values.items())


def _joined(name: str, one: float, other: float) -> float:
    if name.endswith(_LEAST):
        return min(one, other)
    return max(one, other) if name.endswith("_start_time_seconds") else one + other


def _runs(path: Path) -> bool:
    with contextlib.suppress(ValueError, OSError):
        os.kill(int(path.stem), 0)
        return True
    return False


def _read(path: Path) -> list[Figures]:
    """What is in a file; nothing where it is gone or of another version."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[Figures])
    except (OSError, msgspec.DecodeError):
        return []


def _write(path: Path, figures: list[Figures]) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_bytes(msgspec.json.encode(figures))
    fresh.replace(path)
