"""What every store is given, and what it is asked; imports nothing that is not in every peer's environment.

A store is built by one process and searched by another, so that what is measured of the second is what searching needs.
"""

from __future__ import annotations

import json
import mmap
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

PER_DOCUMENT = 10
"""Passages."""


class Data:
    """The passages and the queries of a folder. They stay on the disk: memory is the store's own."""

    def __init__(self, folder: Path) -> None:
        counts = json.loads((folder / "counts.json").read_text())
        self.count: int = counts["passages"]
        self.rows = np.load(folder / "rows.npy", mmap_mode="r")
        self.queries = np.array(self.rows[self.count :])
        self.nearest = np.load(folder / "nearest.npy")
        self._places = np.load(folder / "places.npy", mmap_mode="r")
        with (folder / "texts.txt").open("rb") as file:
            self._texts = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def text(self, number: int) -> str:
        return self._texts[self._places[number] : self._places[number + 1]].decode()

    def query_text(self, number: int) -> str:
        return self.text(self.count + number)

    def batches(self, size: int) -> Sequence[range]:
        return [range(start, min(start + size, self.count)) for start in range(0, self.count, size)]


Found = dict[str, float]


def main(name: str, build: Callable[[Data, Path], Found], search: Callable[[Data, Path], Found]) -> None:
    """What is asked for on the command line, `FOLDER build` or `FOLDER search`; prints what was found in the last line.

    Args:
        build: Makes the store in an empty folder.
        search: Opens it, and has `asked` measure it.
    """
    folder = Path(sys.argv[1])
    data = Data(folder)
    place = folder / name
    if sys.argv[2] == "build":
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        started = time.perf_counter()
        found = build(data, place)
        found = {"build_s": time.perf_counter() - started, **found, "disk_mb": disk_mb(place)}
    else:
        found = search(data, place)
    print(json.dumps(found), flush=True)
    os._exit(0)


def asked(data: Data, hybrid: Callable[[int], object], nearest: Callable[[int], Sequence[int]]) -> Found:
    """The times of hybrid searches, one after another, and the share of the ten nearest that are found by meaning.

    Each is made twice, and the first time is not counted.
    """
    return {**times(data, hybrid), "recall": recall(data, nearest)}


def times(data: Data, search: Callable[[int], object]) -> Found:
    """In milliseconds."""
    taken: list[float] = []
    for number in range(len(data.queries)):
        search(number)
    for number in range(len(data.queries)):
        started = time.perf_counter()
        search(number)
        taken.append((time.perf_counter() - started) * 1000)
    return percentiles(taken)


def percentiles(taken: Sequence[float]) -> Found:
    return {"p50_ms": float(np.percentile(taken, 50)), "p95_ms": float(np.percentile(taken, 95))}


def recall(data: Data, nearest: Callable[[int], Sequence[int]]) -> float:
    hits = [len(set(nearest(number)) & set(data.nearest[number].tolist())) for number in range(len(data.queries))]
    return sum(hits) / (10 * len(hits))


def memory() -> Found:
    """Of this process: what it holds, and the pages of files that it has mapped, which the system may take back."""
    lines = Path("/proc/self/status").read_text().splitlines()
    sizes = {line.split()[0]: int(line.split()[1]) / 1e3 for line in lines if line.startswith("Rss")}
    return {"memory_mb": sizes["RssAnon:"], "mapped_mb": sizes["RssFile:"]}


def since(before: Found) -> Found:
    """What memory has become more."""
    return {name: size - before[name] for name, size in memory().items()}


def disk_mb(folder: Path) -> float:
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file()) / 1e6
