"""What the gateway costs: requests/s through it against straight to a static server, added latency, memory."""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.running import Parkway, cpu_s, free_port, resident_mib

ANSWER = {
    "id": "chatcmpl-static",
    "object": "chat.completion",
    "created": 1,
    "model": "static",
    "choices": [
        {"index": 0, "message": {"role": "assistant", "content": "tar xf archive.tar.gz"}, "finish_reason": "stop"}
    ],
    "usage": {"prompt_tokens": 12, "completion_tokens": 8, "total_tokens": 20},
}
REQUEST = {"model": "static", "messages": [{"role": "user", "content": "How do I unpack a .tar.gz?"}]}

NGINX = """
worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off; keepalive_requests 1000000; client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{
    listen 127.0.0.1:{port}; default_type application/json;
    location /v1/ {{ return 200 '{answer}'; }}
  }}
}}
"""


def wrk(url: str, key: str, connections: int, seconds: float, folder: Path) -> tuple[float, float]:
    """Requests/s and the median latency in ms of one run of wrk. Raises if any answer was not a 2xx."""
    script = folder / "post.lua"
    script.write_text(
        f'wrk.method = "POST"\nwrk.body = {json.dumps(json.dumps(REQUEST))}\n'
        f'wrk.headers["content-type"] = "application/json"\nwrk.headers["authorization"] = "Bearer {key}"\n'
    )
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "--latency", "-s", str(script), url]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    if "Non-2xx" in printed or "Socket errors" in printed:
        raise SystemExit(f"wrk saw failures:\n{printed}")
    rate = float(re.findall(r"Requests/sec:\s+([\d.]+)", printed)[0])
    value, unit = re.findall(r"50%\s+([\d.]+)(us|ms|s)", printed)[0]
    return rate, float(value) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[unit]


def main() -> None:
    """Alternates the two paths `--rounds` times and prints medians."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--seconds", type=float, default=5)
    arguments.add_argument("--connections", type=int, default=16)
    arguments.add_argument("--requests", type=int, default=100_000, help="sent before the memory is read")
    options = arguments.parse_args()
    for program in ("nginx", "wrk"):
        if shutil.which(program) is None:
            sys.exit(f"{program} is not installed; on Debian: apt-get install {program}")
    with tempfile.TemporaryDirectory(prefix="parkway-bench-") as name:
        folder = Path(name)
        port = free_port()
        (folder / "nginx.conf").write_text(NGINX.format(folder=folder, port=port, answer=json.dumps(ANSWER)))
        nginx = subprocess.Popen(["nginx", "-c", str(folder / "nginx.conf"), "-p", str(folder)])
        settings = {
            "models": {"static": f"http://127.0.0.1:{port}/v1"},
            "limits": {"rate_per_s": 1_000_000, "burst": 1_000_000},
        }
        try:
            with Parkway(folder / "home", settings) as parkway:
                measure(options, parkway, f"http://127.0.0.1:{port}", nginx.pid, folder)
        finally:
            nginx.terminate()
            nginx.wait()


def measure(options: argparse.Namespace, parkway: Parkway, static: str, nginx_pid: int, folder: Path) -> None:
    gateway = parkway.process("gateway")
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) > 1:  # the gateway has one core to itself; what loads it has another
        os.sched_setaffinity(gateway, {cores[0]})
        os.sched_setaffinity(nginx_pid, {cores[1]})
        os.sched_setaffinity(0, {cores[1]})
    path, key = "/v1/chat/completions", parkway.key
    wrk(parkway.url + path, key, options.connections, 1, folder)
    sent = 0.0
    rows: list[tuple[float, ...]] = []
    for _ in range(options.rounds):
        direct_rate, _ = wrk(static + path, key, options.connections, options.seconds, folder)
        spent = cpu_s(gateway)
        through_rate, _ = wrk(parkway.url + path, key, options.connections, options.seconds, folder)
        per_core = through_rate * options.seconds / (cpu_s(gateway) - spent)
        _, direct_ms = wrk(static + path, key, 1, options.seconds, folder)
        rate, through_ms = wrk(parkway.url + path, key, 1, options.seconds, folder)
        sent += (through_rate + rate) * options.seconds
        rows.append((direct_rate, through_rate, per_core, direct_ms, through_ms))
    while sent < options.requests:
        rate, _ = wrk(parkway.url + path, key, options.connections, options.seconds, folder)
        sent += rate * options.seconds
    medians = (statistics.median(column) for column in zip(*rows, strict=True))
    direct_rate, through_rate, per_core, direct_ms, through_ms = medians
    print(f"straight to nginx, {options.connections} connections    {direct_rate:10,.0f} requests/s")
    print(f"through the gateway, one core       {through_rate:10,.0f} requests/s")
    print(f"a second of the gateway's CPU       {per_core:10,.0f} requests     (asked for: 2,500)")
    print(f"ratio                               {through_rate / direct_rate:10.3f}")
    print(f"added latency, p50, 1 connection    {through_ms - direct_ms:10.3f} ms   (asked for: at most 1)")
    print(f"memory after {sent:9,.0f} requests    {resident_mib(gateway):10.0f} MiB  (asked for: at most 150)")


if __name__ == "__main__":
    main()
