"""What every store is given, and what it is asked; imports nothing that is not in every peer's environment."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np


class Data:
    """The passages and the queries of a folder."""

    def __init__(self, folder: Path) -> None:
        counts = json.loads((folder / "counts.json").read_text())
        self.count: int = counts["passages"]
        self.rows = np.load(folder / "rows.npy", mmap_mode="r")
        self.queries = np.array(self.rows[self.count :])
        self.nearest = np.load(folder / "nearest.npy")
        with (folder / "texts.txt").open() as file:
            texts = file.read().splitlines()
        self.texts, self.query_texts = texts[: self.count], texts[self.count :]

    def batches(self, size: int) -> Sequence[range]:
        return [range(start, min(start + size, self.count)) for start in range(0, self.count, size)]


def measure(data: Data, search: Callable[[int], object]) -> dict[str, float]:
    """Milliseconds of one search after another; each is made twice, and the first time is not counted."""
    taken: list[float] = []
    for number in range(len(data.queries)):
        search(number)
    for number in range(len(data.queries)):
        started = time.perf_counter()
        search(number)
        taken.append((time.perf_counter() - started) * 1000)
    return {"p50_ms": float(np.percentile(taken, 50)), "p95_ms": float(np.percentile(taken, 95))}


def recall(data: Data, nearest: Callable[[int], Sequence[int]]) -> float:
    """The share of the ten nearest that are found."""
    hits = [len(set(nearest(number)) & set(data.nearest[number].tolist())) for number in range(len(data.queries))]
    return sum(hits) / (10 * len(hits))


def memory_mb() -> float:
    """Of this process, with the pages of files that it has mapped and touched."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return float("nan")


def disk_mb(folder: Path) -> float:
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file()) / 1e6


def say(found: dict[str, float]) -> None:
    print(json.dumps(found), flush=True)
    os._exit(0)
