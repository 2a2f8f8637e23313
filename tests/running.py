"""A running Parkway with a home of its own, for the end-to-end tests and the benchmarks."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType


def free_port() -> int:
    """A port that nobody listens on at this moment."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def resident_mib(pid: int) -> float:
    """Resident memory of a process, in MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise ProcessLookupError(pid)


class Parkway:
    """`parkway up` with `settings` as its parkway.yaml, for the length of the context.

    Attributes:
        url: Where it listens.
        key: The first key.
        ready_s: Seconds from the start of the command to its line `ready`.
    """

    def __init__(self, home: Path, settings: dict[str, object], environment: dict[str, str] | None = None) -> None:
        self._home = home
        self._settings = settings
        self._environment = {**os.environ, "PARKWAY_HOME": str(home), **(environment or {})}
        self.url = ""
        self.key = ""
        self.ready_s = 0.0

    def __enter__(self) -> Parkway:
        self._home.mkdir(parents=True, exist_ok=True)
        config = self._home / "bench.yaml"
        config.write_text(json.dumps(self._settings))  # JSON is YAML
        command = [sys.executable, "-m", "parkway", "up", "--config", str(config), "--port", "0"]
        started = time.monotonic()
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=self._environment)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        self.ready_s = time.monotonic() - started
        if not line.startswith("ready "):
            self._process.kill()
            raise SystemExit(f"parkway up did not become ready: {line!r}")
        self.url = line.split()[1]
        show = [sys.executable, "-m", "parkway", "key", "show"]
        self.key = subprocess.run(show, check=True, capture_output=True, text=True, env=self._environment).stdout.strip()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait(60)

    def process(self, role: str) -> int:
        """The process id of the child that runs `parkway ROLE ...`."""
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except (OSError, ValueError):
                continue
            if parent == self._process.pid and role.encode() in words:
                return int(entry.name)
        raise SystemExit(f"no {role} process under parkway up")
