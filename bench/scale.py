"""Whether a request costs the gateway more with 100,000 keys than with 10, or with 1,000 endpoints than with one.

CPU time of the whole gateway process for each request that goes through it, with everything on. Every key has asked
before, so that all that the gateway keeps for each is there. What the gateway uses without any request is taken off and
shown by itself: it checks the health of every endpoint, and a thousand take a thousand times as long as one.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import random
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import uvloop

from bench.gateway_vs_peers import ASKED, EVERYTHING, PATH, PRICE, upstream
from bench.peers.http_load import closed, post
from bench.peers.keys import mint
from bench.peers.static_upstream import addresses
from parkway.router.balance import BALANCERS
from tests.running import Parkway, cpu_s


@dataclass(slots=True)
class Installation:
    """A gateway that runs, and what a request has cost it, in microseconds, round by round."""

    keys: int
    endpoints: int
    gateway: int
    port: int
    requests: Iterator[bytes]
    at_rest: float = 0.0
    """Of a second of one core, without any request."""
    costs_us: list[float] = field(default_factory=list[float])

    @property
    def cost_us(self) -> float:
        return statistics.median(self.costs_us)

    def rest(self, seconds: float) -> None:
        """Waits until what was left to write of the requests before is written, and measures what it uses then."""
        self.at_rest = 1.0
        for _ in range(30):
            before, earlier = cpu_s(self.gateway), self.at_rest
            time.sleep(seconds)
            self.at_rest = (cpu_s(self.gateway) - before) / seconds
            if 0.5 > self.at_rest > 0.8 * earlier:
                break

    def ask(self, requests: int) -> None:
        """One round."""
        spent, began = cpu_s(self.gateway), time.monotonic()
        uvloop.run(closed(self.port, itertools.islice(self.requests, requests)))
        spent, took = cpu_s(self.gateway) - spent, time.monotonic() - began
        self.costs_us.append((spent - self.at_rest * took) / requests * 1e6)


@contextlib.contextmanager
def installation(folder: Path, keys: int, hosts: list[str], port: int, balance: str) -> Iterator[Installation]:
    """Parkway with as many keys, and with `hosts` as the endpoints of its model."""
    home = folder / f"{keys}-{len(hosts)}"
    texts = mint(home, keys)
    random.Random(1).shuffle(texts)
    body = json.dumps(ASKED).encode()
    endpoints = [{"url": f"http://{host}:{port}/v1"} for host in hosts]
    settings = {**EVERYTHING, "models": {"static": {"balance": balance, "price": PRICE, "endpoints": endpoints}}}
    with Parkway(home, settings) as parkway:
        yield Installation(
            keys,
            len(hosts),
            parkway.process("gateway"),
            int(parkway.url.rpartition(":")[2]),
            (post(PATH, text, body) for text in itertools.cycle(texts)),
        )


def main() -> None:
    """Alternates the installations `--rounds` times and prints medians."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--keys", type=int, nargs="+", default=[10, 100_000])
    arguments.add_argument("--endpoints", type=int, nargs="+", default=[1, 1000])
    arguments.add_argument("--balance", choices=sorted(BALANCERS), default="least_outstanding")
    arguments.add_argument("--rounds", type=int, default=7)
    arguments.add_argument("--requests", type=int, default=8000, help="of one installation in a round")
    options = arguments.parse_args()
    few_keys, few_endpoints = options.keys[0], options.endpoints[0]
    sizes = [(keys, few_endpoints) for keys in options.keys] + [(few_keys, many) for many in options.endpoints[1:]]
    with tempfile.TemporaryDirectory(prefix="parkway-bench-") as name, contextlib.ExitStack() as stack:
        port, _ = stack.enter_context(upstream(addresses=max(options.endpoints)))
        installations = [
            stack.enter_context(installation(Path(name), keys, addresses(endpoints), port, options.balance))
            for keys, endpoints in sizes
        ]
        for each in installations:
            each.ask(max(each.keys, options.requests))
            each.rest(4)
            each.costs_us.clear()
        for number in range(options.rounds):
            for each in installations:
                each.ask(options.requests)
            print(f"round {number + 1} of {options.rounds}", flush=True)
    base = installations[0].cost_us
    print(f"{'keys':>8} {'endpoints':>10} {'us of CPU a request':>20} {'ratio':>7} {'of a core at rest':>18}")
    for each in installations:
        ratio = each.cost_us / base
        print(f"{each.keys:8,} {each.endpoints:10,} {each.cost_us:20.0f} {ratio:7.2f} {each.at_rest:17.1%}")


if __name__ == "__main__":
    main()
