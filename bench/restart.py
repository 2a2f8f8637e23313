"""Gateways replaced under load: requests that failed, and what the others took in and out of the restarts."""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from pathlib import Path

from tests.launch.load import Load, SteadyModel, load
from tests.running import Parkway


def main() -> None:
    """Replaces the gateways `--reloads` times, with some seconds of undisturbed load around each."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--reloads", type=int, default=3)
    arguments.add_argument("--workers", type=int, default=2)
    arguments.add_argument("--plain", type=int, default=8, help="clients that ask for plain answers")
    arguments.add_argument("--streamed", type=int, default=8, help="clients that ask for streams")
    arguments.add_argument("--seconds", type=float, default=4, help="of load before each reload, and at the end")
    options = arguments.parse_args()
    asyncio.run(measure(options))


async def measure(options: argparse.Namespace) -> None:
    model = SteadyModel(pause_s=0.02)
    settings: dict[str, object] = {
        "models": {"steady": await model.start()},
        "limits": {"rate_per_s": 1_000_000, "burst": 1_000_000},
        "gateway": {"workers": options.workers},
        "pulled_models": False,
    }
    with tempfile.TemporaryDirectory(prefix="parkway-bench-") as name:
        with Parkway(Path(name) / "home", settings) as parkway:
            clients = {"plain": options.plain, "streamed": options.streamed, "pause_s": 0.02}
            restarts: list[tuple[float, float]] = []
            async with load(parkway.url, parkway.key, "steady", **clients) as result:
                for _ in range(options.reloads):
                    await asyncio.sleep(options.seconds)
                    began = time.monotonic()
                    await asyncio.to_thread(parkway.command, "reload")
                    restarts.append((began, time.monotonic()))
                await asyncio.sleep(options.seconds)
        await model.stop()
    report(options, result, restarts)


def report(options: argparse.Namespace, result: Load, restarts: list[tuple[float, float]]) -> None:
    took = statistics.median(ended - began for began, ended in restarts)
    print(f"reloads of {options.workers} workers       {len(restarts):8d}     {took:.2f} s each")
    print(f"requests                   {result.count:8d}     {result.connections} connections, {result.closed} closed")
    print(f"failures and cut streams   {len(result.failures):8d}     (asked for: 0)")
    for each in result.failures[:5]:
        print(f"  {each}")
    for kind, streamed in (("plain", False), ("streamed", True)):
        for name, wanted in (("in restarts", True), ("out of restarts", False)):
            found = [
                took_s * 1000
                for sent, took_s, was_streamed in result.answered
                if was_streamed == streamed
                and any(began - took_s <= sent <= ended for began, ended in restarts) == wanted
            ]
            if len(found) >= 2:
                cuts = statistics.quantiles(found, n=100)
                what = f"{kind}, {name}"
                print(f"{what:26s} p50 {cuts[49]:6.1f} ms   p99 {cuts[98]:6.1f} ms   of {len(found)} answers")


if __name__ == "__main__":
    main()
