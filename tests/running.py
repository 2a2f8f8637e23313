"""A running Parkway with a home of its own, for the end-to-end tests and the benchmarks."""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from time import monotonic
from types import TracebackType

from parkway.store.home import Home


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


def cpu_s(pid: int) -> float:
    """Seconds of processor time that a process has used, its own and the kernel's for it."""
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def children(pid: int) -> dict[int, list[str]]:
    """The child processes of `pid` that still run, with their command lines."""
    found: dict[int, list[str]] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            words = (entry / "cmdline").read_bytes().decode().split("\0")
        except OSError:
            continue
        if int(parent) == pid and state != "Z":
            found[int(entry.name)] = words
    return found


class Parkway:
    """`parkway up` with `settings` as its parkway.yaml, for the length of the context.

    Attributes:
        url: Where it listens.
        key: The first key.
        ready_s: Seconds from the start of the command to its line `ready`.
    """

    def __init__(self, home: Path, settings: dict[str, object], *, start_timeout_s: float = 90) -> None:
        self.home = home
        self.settings = settings
        self.environment = {**os.environ, "PARKWAY_HOME": str(home)}
        self.url = ""
        self.key = ""
        self.ready_s = 0.0
        self.said: list[str] = []
        self._start_timeout_s = start_timeout_s

    def __enter__(self) -> Parkway:
        self.home.mkdir(parents=True, exist_ok=True)
        config = self.home / "parkway.yaml"
        config.write_text(json.dumps(self.settings))  # JSON is YAML
        command = [sys.executable, "-m", "parkway", "up", "--config", str(config), "--port", "0"]
        started = monotonic()
        self.up = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self.environment
        )
        lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._listen, args=(self.up.stdout, lines), daemon=True).start()
        threading.Thread(target=self._listen, args=(self.up.stderr, None), daemon=True).start()
        try:
            line = lines.get(timeout=self._start_timeout_s)
        except queue.Empty:
            line = ""
        self.ready_s = monotonic() - started
        if not line.startswith("ready "):
            self.up.kill()
            raise RuntimeError(f"parkway up did not become ready: {line!r}\n" + "\n".join(self.said))
        self.url = line.split()[1]
        self.key = Home(self.home).first_key_file.read_text().strip()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.up.poll() is None:
            self.up.send_signal(signal.SIGTERM)
            try:
                self.up.wait(60)
            except subprocess.TimeoutExpired:
                self.up.kill()
                raise

    def command(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Runs `parkway ARGUMENTS` on this home."""
        command = [sys.executable, "-m", "parkway", *arguments]
        return subprocess.run(
            command, check=check, capture_output=True, text=True, env=self.environment, cwd=self.home, timeout=60
        )

    def process(self, *words: str) -> int:
        """The process id of the child whose command line has all `words`: `gateway`, or `engine` and a name."""
        for pid, line in children(self.up.pid).items():
            if all(word in line for word in words):
                return pid
        raise ProcessLookupError(words)

    def _listen(self, pipe: object, lines: queue.Queue[str] | None) -> None:
        for line in pipe or ():  # pyright: ignore[reportGeneralTypeIssues]
            self.said.append(line.rstrip())
            if lines is not None:
                lines.put(line.rstrip())
        if lines is not None:
            lines.put("")
