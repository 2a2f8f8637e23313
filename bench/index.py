"""The knowledge index: building it, searching it by words and meaning, searching while it is written; beside peers."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from bench.peers.environment import NotInstalled, interpreter

DIMENSIONS = 384
DEPTH = 100
"""Of each list, as Parkway's search asks for; a peer that fuses by itself gives the first 10 of both."""

PEERS = ("lancedb", "faiss")
COLUMNS = ("build_s", "memory_mb", "disk_mb", "p50_ms", "p95_ms", "recall")


def generate(folder: Path, passages: int, queries: int) -> None:
    """Passages in overlapping clusters with texts to them, queries of the same kind, and what is nearest to those.

    A passage lies between two or three of the square root of N centres, off by something that has 48 degrees of
    freedom, about as many as sentence encoders have. Its text has 100 words, a third of them its first cluster's own.
    """
    random = np.random.default_rng(1)
    total = passages + queries
    centres = random.standard_normal((int(passages**0.5), DIMENSIONS), np.float32)
    around = random.standard_normal((48, DIMENSIONS), np.float32) / 48**0.5
    rows = np.lib.format.open_memmap(folder / "rows.npy", "w+", np.float32, (total, DIMENSIONS))
    clusters = np.empty((total, 3), np.int64)
    for start in range(0, total, 20_000):
        count = min(20_000, total - start)
        chosen = random.integers(0, len(centres), (count, 3))
        shares = random.dirichlet([0.5, 0.5, 0.5], count).astype(np.float32)
        some = np.einsum("nkd,nk->nd", centres[chosen], shares)
        some += 0.7 * random.standard_normal((count, 48), np.float32) @ around
        rows[start : start + count] = some / np.linalg.norm(some, axis=1, keepdims=True)
        clusters[start : start + count] = chosen
    weights = 1 / np.arange(100, 30_100)  # as texts have once empty words are left out: none is in all of them
    weights /= weights.sum()
    with (folder / "texts.txt").open("w") as file:
        for number in range(total):
            words = random.choice(30_000, 6 if number >= passages else 67, p=weights)
            own = 30_000 + clusters[number, 0] * 50 + random.integers(0, 50, 2 if number >= passages else 33)
            file.write(" ".join(f"w{word}x" for word in [*words, *own]) + "\n")
    np.save(folder / "nearest.npy", exact(rows[:passages], rows[passages:]))
    (folder / "counts.json").write_text(json.dumps({"passages": passages, "queries": queries}))


def exact(rows: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """The ten nearest of each query, by comparing with all."""
    best = np.empty((len(queries), 10), np.int64)
    scores = np.full((len(queries), 10), -2, np.float32)
    for start in range(0, len(rows), 50_000):
        some = queries @ rows[start : start + 50_000].T
        ten = np.argpartition(-some, 10, axis=1)[:, :10]
        both = np.concatenate([scores, np.take_along_axis(some, ten, 1)], axis=1)
        names = np.concatenate([best, ten + start], axis=1) if start else np.concatenate([ten, ten], axis=1)
        order = np.argsort(-both, axis=1)[:, :10]
        scores, best = np.take_along_axis(both, order, 1), np.take_along_axis(names, order, 1)
    return best


def run(command: list[str], cores: int) -> dict[str, float]:
    """What a store's own process says in its last line."""
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores]),
    )
    if done.returncode != 0:
        raise NotInstalled(f"ended with status {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def show(name: str, found: dict[str, float]) -> None:
    print(f"{name:24}" + "".join(f"{found.get(column, float('nan')):12.3f}" for column in COLUMNS), flush=True)


def main() -> None:
    """Prints a line for each store."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--passages", type=int, default=100_000)
    arguments.add_argument("--queries", type=int, default=500)
    arguments.add_argument("--peers", nargs="*", default=PEERS, choices=PEERS)
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
            print(f"generates {options.passages:,} passages of {DIMENSIONS} dimensions", flush=True)
            generate(folder, options.passages, options.queries)
        print(f"{'':24}" + "".join(f"{column:>12}" for column in COLUMNS))
        found = run([sys.executable, "-m", "bench.peers.index_parkway", str(folder)], options.cores)
        show("parkway (edge)", found)
        for name in options.peers:
            try:
                python = str(interpreter(name, options.cache))
                show(
                    name,
                    run([python, str(Path(__file__).parent / f"peers/index_{name}.py"), str(folder)], options.cores),
                )
            except NotInstalled as error:
                print(f"{name:24}{error}", flush=True)
        print("\nparkway, further:")
        for key in sorted(set(found) - set(COLUMNS)):
            print(f"  {key:32}{found[key]:12.3f}")


if __name__ == "__main__":
    main()
