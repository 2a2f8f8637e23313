"""The gateway against LiteLLM's proxy: requests and relayed events for a second of one core, added latency, memory."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import uvloop

from bench.peers.environment import NotInstalled, interpreter
from bench.peers.http_load import Paced, paced, post, streams
from bench.peers.static_upstream import events as whole_stream
from tests.running import Parkway, children, cpu_s, free_port, resident_mib

PATH = "/v1/chat/completions"
ASKED = {"model": "static", "messages": [{"role": "user", "content": "How do I unpack a .tar.gz?"}]}
EVENTS = 500  # of one stream
PRICE = {"prompt_usd_per_million": 0.5, "completion_usd_per_million": 1.5}

EVERYTHING: dict[str, object] = {
    "limits": {"rate_per_s": 1_000_000, "burst": 1_000_000, "teams": {"*": {"tokens_per_day": 10**15}}},
    "budgets": [{"kind": "key", "period": "month", "tokens": 10**15, "usd": 10**6}],
    "guardrails": [
        {"name": "personal data", "check": "personal_data", "on": "input", "action": "redact"},
        {"name": "secrets", "check": "secrets", "on": "input", "action": "block"},
    ],
    "admission": {"default_tier": "gold", "tiers": {"gold": {"class": "interactive", "max_output_tokens": 4096}}},
}
"""Parkway with what a team would switch on. Keys, limits, permissions, admission with its queues, breakers, the audit
log of every decision, traces and metrics are on anyway; guardrails check inputs here: on outputs they take streams
apart."""


@dataclass(slots=True)
class Contestant:
    """A gateway that runs, and what was measured of it; `ours` is Parkway."""

    name: str
    ours: bool
    port: int
    pid: int
    key: str
    ready_s: float
    figures: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def median(self, figure: str) -> float | None:
        return statistics.median(self.figures[figure]) if self.figures[figure] else None


@contextlib.contextmanager
def upstream(events: int = EVENTS, addresses: int = 1) -> Iterator[tuple[int, int]]:
    """The static endpoint: its port and process."""
    port = free_port()
    command = [sys.executable, "-m", "bench.peers.static_upstream", str(port), str(events), str(addresses)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield port, process.pid
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def parkway(folder: Path, endpoint: int) -> Iterator[Contestant]:
    settings = {**EVERYTHING, "models": {"static": {"url": f"http://127.0.0.1:{endpoint}/v1", "price": PRICE}}}
    with Parkway(folder / "home", settings) as running:
        port = int(running.url.rpartition(":")[2])
        yield Contestant("parkway", True, port, running.process("gateway"), running.key, running.ready_s)


@contextlib.contextmanager
def litellm(folder: Path, endpoint: int, cache: Path) -> Iterator[Contestant]:
    """LiteLLM's proxy as its documentation starts it: one worker, a master key, no database."""
    program = interpreter("litellm", cache).parent / "litellm"
    model = {"model": "openai/static", "api_base": f"http://127.0.0.1:{endpoint}/v1", "api_key": "none"}
    config = folder / "litellm.yaml"
    config.write_text(json.dumps({
        "model_list": [{"model_name": "static", "litellm_params": model}],
        "general_settings": {"master_key": "sk-bench"},
        "litellm_settings": {"telemetry": False},
    }))  # fmt: skip
    port = free_port()
    command = [str(program), "--config", str(config), "--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"]
    environment = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"}
    with (folder / "litellm.log").open("wb") as log:
        started = time.monotonic()
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            while not _answers(port, "sk-bench"):
                if process.poll() is not None or time.monotonic() - started > 180:
                    raise NotInstalled(f"it did not start: {(folder / 'litellm.log').read_text()[-500:]}")
                time.sleep(0.1)
            yield Contestant("litellm", False, port, process.pid, "sk-bench", time.monotonic() - started)
        finally:
            process.terminate()
            process.wait(30)


def _answers(port: int, key: str) -> bool:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{PATH}", json.dumps(ASKED).encode())
    request.add_header("authorization", f"Bearer {key}")
    request.add_header("content-type", "application/json")
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status == 200
    except OSError:
        return False


def wrk(port: int, key: str, seconds: float, connections: int, folder: Path) -> float:
    """Requests/s of as many as the gateway takes. Raises SystemExit if any answer was not a 2xx."""
    script = folder / "post.lua"
    script.write_text(
        f'wrk.method = "POST"\nwrk.body = {json.dumps(json.dumps(ASKED))}\n'
        f'wrk.headers["content-type"] = "application/json"\nwrk.headers["authorization"] = "Bearer {key}"\n'
    )
    url = f"http://127.0.0.1:{port}{PATH}"
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "-s", str(script), url]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    if "Non-2xx" in printed or "Socket errors" in printed:
        raise SystemExit(f"wrk saw failures:\n{printed}")
    return float(re.findall(r"Requests/sec:\s+([\d.]+)", printed)[0])


def measure(contestant: Contestant, endpoint: int, options: argparse.Namespace, folder: Path) -> None:
    """One round of everything."""
    figures, seconds = contestant.figures, options.seconds
    before = busy_s(contestant)
    rate = wrk(contestant.port, contestant.key, seconds, options.connections, folder)
    figures["requests per core"].append(rate * seconds / (busy_s(contestant) - before))
    body = json.dumps(ASKED).encode()
    through, straight = (
        percentiles(uvloop.run(paced(port, post(PATH, contestant.key, body), rate / 2, seconds)))
        for port in (contestant.port, endpoint)
    )
    figures["added p50 ms"].append(through[0] - straight[0])
    figures["added p99 ms"].append(through[1] - straight[1])
    request = post(PATH, contestant.key, json.dumps({**ASKED, "stream": True}).encode())
    count = options.streams if contestant.ours else max(1, options.streams // 20)
    before = busy_s(contestant)
    digests = uvloop.run(streams(contestant.port, request, count, at_once=16))
    figures["events per core"].append(count * (EVENTS + 2) / (busy_s(contestant) - before))
    if contestant.ours and set(digests) != {hashlib.sha256(b"".join(whole_stream(EVENTS))).hexdigest()}:
        raise SystemExit(f"a stream was not relayed byte for byte: {set(digests)}")


def busy_s(contestant: Contestant) -> float:
    """Processor time of the gateway, and of what it has started."""
    pids = [contestant.pid, *children(contestant.pid)]
    return sum(cpu_s(pid) for pid in pids)


def percentiles(found: Paced) -> tuple[float, float]:
    """p50 and p99 in ms. Raises SystemExit if a request failed."""
    if found.failures or len(found.seconds) < 100:
        raise SystemExit(f"{found.failures} of {len(found.seconds)} paced requests failed")
    cuts = statistics.quantiles(found.seconds, n=100)
    return cuts[49] * 1000, cuts[98] * 1000


def pin(contestants: list[Contestant], upstream_pid: int) -> None:
    """The gateways have one core to themselves, in turn; what loads them has another."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        return
    for contestant in contestants:
        for pid in (contestant.pid, *children(contestant.pid)):
            for thread in Path(f"/proc/{pid}/task").iterdir():
                os.sched_setaffinity(int(thread.name), {cores[0]})
    os.sched_setaffinity(upstream_pid, {cores[1]})
    os.sched_setaffinity(0, {cores[1]})


def report(contestants: list[Contestant], left_out: str) -> None:
    ours = next(each for each in contestants if each.ours)
    peer = next((each for each in contestants if not each.ours), None)
    rows = (
        ("requests per core", "requests for a second of one core", "at least 4,000"),
        ("events per core", "relayed events for a second of one core", "at least 25,000"),
        ("added p50 ms", "added at half load, p50, ms", "at most 0.5"),
        ("added p99 ms", "added at half load, p99, ms", "at most 3"),
        ("memory MiB", "memory after all that, MiB", "at most 120"),
        ("ready s", "from its start to ready, s", "at most 1.5"),
    )
    print(f"\n  {'':44}{'parkway':>10}{'litellm':>10}{'ratio':>8}   asked for")
    for figure, text, asked in rows:
        mine, theirs = ours.median(figure), peer.median(figure) if peer else None
        assert mine is not None
        ratio = f"{mine / theirs:8.2f}" if theirs else " " * 8
        print(f"  {text:44}{mine:10,.2f}{'' if theirs is None else f'{theirs:,.2f}':>10}{ratio}   {asked}")
    print("  asked of the first ratio: at least 30. Streams were relayed byte for byte.")
    if left_out:
        print(f"\n  left out: litellm: {left_out}")


def main() -> None:
    """Alternates the contestants `--rounds` times and prints medians."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--seconds", type=float, default=5)
    arguments.add_argument("--connections", type=int, default=32)
    arguments.add_argument("--streams", type=int, default=400, help=f"of {EVENTS} events each, a round")
    arguments.add_argument("--requests", type=int, default=0, help="sent to Parkway before its memory is read")
    arguments.add_argument("--alone", action="store_true", help="without the peer")
    arguments.add_argument("--cache", type=Path, default=Path.home() / ".cache/parkway-bench", help="peers")
    options = arguments.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("wrk is not installed; on Debian: apt-get install wrk")
    options.cache.mkdir(parents=True, exist_ok=True)
    left_out = ""
    with tempfile.TemporaryDirectory(prefix="parkway-bench-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        endpoint, upstream_pid = stack.enter_context(upstream())
        contestants = [stack.enter_context(parkway(folder, endpoint))]
        if not options.alone:
            try:
                contestants.append(stack.enter_context(litellm(folder, endpoint, options.cache)))
            except NotInstalled as error:
                left_out = str(error)
        pin(contestants, upstream_pid)
        for number in range(options.rounds):
            for contestant in contestants:
                measure(contestant, endpoint, options, folder)
            print(f"round {number + 1} of {options.rounds}", flush=True)
        sent = 0.0
        while sent < options.requests:
            sent += wrk(contestants[0].port, contestants[0].key, 10, options.connections, folder) * 10
        for contestant in contestants:
            contestant.figures["ready s"].append(contestant.ready_s)
            contestant.figures["memory MiB"].append(
                sum(resident_mib(pid) for pid in (contestant.pid, *children(contestant.pid)))
            )
        report(contestants, left_out)


if __name__ == "__main__":
    main()
