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
    say("open")
    if sys.argv[3:] == ["optimise"]:
        start_thread(lambda: optimise(index), name="test/optimise")
    rows = vectors(10)
    for document in range(first, first + 10_000):
        for version in ("1", "2"):
            index.upsert([passage(10 * document + at, version=version) for at in range(10)], rows)
            index.remove(f"d{document}", but=version)
            say(f"d{document} {version}")
        if document % 5 == 4:
            index.remove(f"d{document}")
            say(f"d{document} -")


def optimise(index: EdgeIndex) -> None:
    while True:
        say("optimising")
        done = index.optimise()
        say("optimised" if done else "nothing to optimise")
        threading.Event().wait(0.01)


def say(line: str) -> None:
    """In one piece: `print` writes the end of a line by itself, and another thread may come between."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
