"""From `parkway up` to `ready`: the built-in models, a new home and one that exists."""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

from tests.running import Parkway


def main() -> None:
    """Starts and stops Parkway `--rounds` times on one home."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=5)
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="parkway-bench-") as name:
        took: list[float] = []
        for _ in range(options.rounds + 1):
            with Parkway(Path(name) / "home", {}) as parkway:
                took.append(parkway.ready_s)
    print(f"first start, new home    {took[0]:6.2f} s")
    print(f"later starts, median     {statistics.median(took[1:]):6.2f} s   (asked for: at most 5)")


if __name__ == "__main__":
    main()
