"""A process that writes to an index until it is killed: prints a line for each change that was acknowledged."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from parkway.core.tasks import start_thread
from parkway.retrieval.index.config import IndexConfig
from parkway.retrieval.index.edge import EdgeIndex
from tests.retrieval.index.corpus import DIMENSIONS, passage, vectors


def main() -> None:
    """Arguments: the directory, the number of the first document, `optimise` to do that, too, again and again."""
    directory, first = Path(sys.argv[1]), int(sys.argv[2])
    config = IndexConfig(graph_from=50, build_threads=1, build_niceness=0)
    index = EdgeIndex(directory, config, DIMENSIONS)
    print("open", flush=True)
    if sys.argv[3:] == ["optimise"]:
        start_thread(lambda: optimise(index), name="test/optimise")
    rows = vectors(10)
    for document in range(first, first + 10_000):
        for version in ("1", "2"):
            index.upsert([passage(10 * document + at, version=version) for at in range(10)], rows)
            index.remove(f"d{document}", but=version)
            print(f"d{document} {version}", flush=True)
        if document % 5 == 4:
            index.remove(f"d{document}")
            print(f"d{document} -", flush=True)


def optimise(index: EdgeIndex) -> None:
    while True:
        print("optimising", flush=True)
        done = index.optimise()
        print("optimised" if done else "nothing to optimise", flush=True)
        threading.Event().wait(0.01)


if __name__ == "__main__":
    main()
