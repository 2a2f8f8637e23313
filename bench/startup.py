"""From `parkway up` to `ready`: the built-in models, a new home and one that exists; and the gateway alone."""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.running import Parkway, resident_mib


def main() -> None:
    """Starts and stops Parkway `--rounds` times on one home."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--gateway-only", action="store_true")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="parkway-bench-") as name:
        if not options.gateway_only:
            took: list[float] = []
            for _ in range(options.rounds + 1):
                with Parkway(Path(name) / "home", {}) as parkway:
                    took.append(parkway.ready_s)
            print(f"first start, new home    {took[0]:6.2f} s")
            print(f"later starts, median     {statistics.median(took[1:]):6.2f} s   (asked for: at most 5)")
        # Once more, so that there is a home with tables whichever way it was asked for.
        with Parkway(Path(name) / "home", {"models": {}, "pulled_models": False}):
            pass
        alone = [gateway_alone(Path(name) / "home") for _ in range(options.rounds)]
    print(f"gateway alone, median    {statistics.median(each[0] for each in alone):6.2f} s   (asked for: at most 1.5)")
    print(f"  its processor time     {statistics.median(each[1] for each in alone):6.2f} s")
    print(f"  its memory             {statistics.median(each[2] for each in alone):6.0f} MiB")


def gateway_alone(home: Path) -> tuple[float, float, float]:
    """Seconds from the start of `parkway gateway` to its line `ready`, those of the processor, and MiB of memory."""
    config = home / "alone.yaml"
    config.write_text('{"models": {}, "gateway": {"port": 0}}')
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "parkway", "gateway", "--config", str(config)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PARKWAY_HOME": str(home)},
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    took_s = time.monotonic() - began
    if not line.startswith(b"ready "):
        raise SystemExit("the gateway did not become ready")
    memory = resident_mib(process.pid)
    before = os.times()
    process.terminate()
    process.wait(30)
    after = os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return took_s, spent, memory


if __name__ == "__main__":
    main()
