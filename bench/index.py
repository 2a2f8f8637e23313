"""The knowledge index: building it, searching it by words and meaning, searching while it is written; beside peers."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from bench.peers.environment import NotInstalled, interpreter

DIMENSIONS = 384

STORES = ("parkway", "lancedb", "usearch_tantivy", "faiss")
COMPLETE = STORES[:3]
"""They find by words and by meaning; FAISS by meaning alone."""

COLUMNS = ("build_s", "build_mb", "disk_mb", "open_s", "memory_mb", "mapped_mb", "p50_ms", "p95_ms", "recall")

WORDS = 30_000
"""That all clusters have; each has 50 of its own."""

BLOCK = 20_000


def generate(folder: Path, passages: int, queries: int) -> None:
    """Passages in overlapping clusters with texts to them, queries of the same kind, and what is nearest to those.

    A passage lies between two or three of the square root of N centres, off by something that has 48 degrees of
    freedom, about as many as sentence encoders have. Its text has 100 words, a third of them its first cluster's own.
    """
    random = np.random.default_rng(1)
    total = passages + queries
    centres = random.standard_normal((int(passages**0.5), DIMENSIONS), np.float32)
    around = random.standard_normal((48, DIMENSIONS), np.float32) / 48**0.5
    words = np.array([word(number) for number in range(WORDS + 50 * len(centres))])
    shares = 1 / np.arange(100, 100 + WORDS)  # as texts have once empty words are left out: none is in all of them
    shares = np.cumsum(shares / shares.sum())
    rows = np.lib.format.open_memmap(folder / "rows.npy", "w+", np.float32, (total, DIMENSIONS))
    places, end = np.zeros(total + 1, np.int64), 0
    with (folder / "texts.txt").open("wb") as file:
        for start in [*range(0, passages, BLOCK), passages]:
            count = min(BLOCK, passages - start) or queries
            chosen = random.integers(0, len(centres), (count, 3))
            weights = random.dirichlet([0.5, 0.5, 0.5], count).astype(np.float32)
            some = np.einsum("nkd,nk->nd", centres[chosen], weights)
            some += 0.7 * random.standard_normal((count, 48), np.float32) @ around
            rows[start : start + count] = some / np.linalg.norm(some, axis=1, keepdims=True)
            of_all, own = (6, 2) if start == passages else (67, 33)
            said = np.searchsorted(shares, random.random((count, of_all)))
            said = np.concatenate([said, WORDS + chosen[:, :1] * 50 + random.integers(0, 50, (count, own))], axis=1)
            for number, text in enumerate(words[said], start):
                end += file.write(" ".join(text).encode())
                places[number + 1] = end
    np.save(folder / "places.npy", places)
    np.save(folder / "nearest.npy", exact(rows[:passages], rows[passages:]))
    (folder / "counts.json").write_text(json.dumps({"passages": passages, "queries": queries}))


def word(number: int) -> str:
    """Letters alone, another for each number; no language has it, or knows an ending of it."""
    sounds = [consonant + vowel for consonant in "bcdfghjklmnpqrstvwxz" for vowel in "aeiou"]
    return "".join(sounds[number // 100**place % 100] for place in range(3)) + "k"


def exact(rows: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """The ten nearest of each query, by comparing with all."""
    best = np.zeros((len(queries), 10), np.int64)
    scores = np.full((len(queries), 10), -2, np.float32)
    for start in range(0, len(rows), 50_000):
        some = queries @ rows[start : start + 50_000].T
        ten = np.argpartition(-some, 10, axis=1)[:, :10]
        scores = np.concatenate([scores, np.take_along_axis(some, ten, 1)], axis=1)
        best = np.concatenate([best, ten + start], axis=1)
        order = np.argsort(-scores, axis=1)[:, :10]
        scores, best = np.take_along_axis(scores, order, 1), np.take_along_axis(best, order, 1)
    return best


def run(command: list[str], cores: int) -> dict[str, float]:
    """What a store's own process says in its last line, and the most memory that it and its children held.

    Raises:
        NotInstalled: It failed.
    """
    child = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores]),
    )
    most = 0.0
    while child.poll() is None:
        most = max(most, held_mb(child.pid))
        time.sleep(0.2)
    assert child.stdout is not None
    said = child.stdout.read().splitlines()
    if child.returncode != 0 or not said:
        raise NotInstalled(f"ended with status {child.returncode}")
    return {**json.loads(said[-1]), "most_mb": most}


def held_mb(pid: int) -> float:
    """By a process and all below it, without files that are mapped."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        below = [
            int(child) for path in Path(f"/proc/{pid}/task").glob("*/children") for child in path.read_text().split()
        ]
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    own = next((int(line.split()[1]) / 1e3 for line in lines if line.startswith("RssAnon")), 0.0)
    return own + sum(held_mb(child) for child in below)


def measured(name: str, folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """Builds a store, then searches it.

    Raises:
        NotInstalled: One of them failed, or the store cannot be had.
    """
    if name == "parkway":
        command = [sys.executable, "-m", "bench.peers.index_parkway"]
    else:
        command = [str(interpreter(name, options.cache)), str(Path(__file__).parent / f"peers/index_{name}.py")]
    built = run([*command, str(folder), "build"], options.cores)
    return {**run([*command, str(folder), "search"], options.cores), **built, "build_mb": built["most_mb"]}


def main() -> None:
    """Prints a line for each store."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--passages", type=int, default=100_000)
    arguments.add_argument("--queries", type=int, default=500)
    arguments.add_argument("--stores", nargs="*", default=COMPLETE, choices=STORES)
    arguments.add_argument("--cores", type=int, default=2)
    arguments.add_argument("--folder", type=Path, help="where data and indexes lie; removed afterwards unless given")
    arguments.add_argument("--cache", type=Path, default=Path.home() / ".cache/parkway-bench", help="peers")
    options = arguments.parse_args()
    options.cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="parkway-bench-index-") as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        counts = folder / "counts.json"
        wanted = {"passages": options.passages, "queries": options.queries}
        if not counts.exists() or json.loads(counts.read_text()) != wanted:
            began = time.monotonic()
            generate(folder, options.passages, options.queries)
            print(f"{options.passages:,} passages of {DIMENSIONS} dimensions, made in {time.monotonic() - began:.0f} s")
        print(f"{'':16}" + "".join(f"{column:>11}" for column in COLUMNS), flush=True)
        further: dict[str, float] = {}
        for name in options.stores:
            try:
                found = measured(name, folder, options)
            except NotInstalled as error:
                print(f"{name:16}{error}", flush=True)
                continue
            print(f"{name:16}" + "".join(f"{found.get(column, float('nan')):11.3f}" for column in COLUMNS), flush=True)
            further |= {key: value for key, value in found.items() if name == "parkway" and key not in COLUMNS}
        for key in sorted(further):
            print(f"  parkway {key:32}{further[key]:12.3f}")


if __name__ == "__main__":
    main()
