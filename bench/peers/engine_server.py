"""`parkway engine` as a process of its own."""

from __future__ import annotations

import select
import subprocess
import sys
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Self

from bench.peers.protocol import end_with_parent


def settings_of(assignments: Iterable[str]) -> dict[str, str]:
    """`KEY=VALUE` of the command line as the engine's settings; leaves with a message where one is not of that form."""
    settings: dict[str, str] = {}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not key or not equals:
            raise SystemExit(f"{assignment!r} is not KEY=VALUE; an example: max_sequences=64")
        settings[key] = value
    return settings


class EngineServer:
    """Serves `model` under the name `bench` for the length of the context.

    Attributes:
        url: where it listens.

    Args:
        settings: what `--set` takes.
        start_timeout_s: for reading the model.
    """

    def __init__(self, model: str, settings: Mapping[str, str], *, start_timeout_s: float = 300) -> None:
        self._command = [sys.executable, "-m", "parkway", "engine", "--model", model, "--name", "bench", "--port", "0"]
        for key, value in settings.items():
            self._command += ["--set", f"{key}={value}"]
        self._start_timeout_s = start_timeout_s
        self.url = ""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True, preexec_fn=end_with_parent)
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], self._start_timeout_s)
        line = self._process.stdout.readline() if ready else ""
        if not line.startswith("ready "):
            self._process.kill()
            self._process.wait()
            raise RuntimeError(f"`parkway engine` did not become ready: {' '.join(self._command)}")
        self.url = line.split()[1]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid
