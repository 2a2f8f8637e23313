"""The other side of `protocol.serve`: a contestant's process, which only runs while it is asked something."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any, Self


class Failed(Exception):
    """A contestant did not do what it was asked; the text says why."""


class ContestantProcess:
    """`PYTHON -m MODULE` for the length of the context, stopped by signal whenever it is not being asked.

    Threads of libraries spin for a while after their work, and would take the cores from whoever is measured next.

    Args:
        log: where its standard error goes.
        timeout_s: a request that takes longer has failed.
    """

    def __init__(self, python: Path, module: str, log: Path, *, timeout_s: float) -> None:
        self._command = [str(python), "-m", module]
        self._log = log
        self._timeout_s = timeout_s

    def __enter__(self) -> Self:
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                bufsize=1,
                start_new_session=True,  # its children are stopped and ended with it
            )
        self._signal(signal.SIGSTOP)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._signal(signal.SIGKILL)
        self._process.communicate()

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, do: str, **arguments: object) -> Any:
        """Let it run until it has replied; returns the value of the reply.

        Raises:
            Failed: it replied with an error, ended, or took too long.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._signal(signal.SIGCONT)
        try:
            self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            ready, _, _ = select.select([self._process.stdout], [], [], self._timeout_s)
            line = self._process.stdout.readline() if ready else None
        except BrokenPipeError:
            line = ""
        finally:
            self._signal(signal.SIGSTOP)
        if line is None:
            raise Failed(f"{do}: no reply within {self._timeout_s:g} s ({self._log})")
        if not line:
            raise Failed(f"{do}: the process ended: {self._last_words()} ({self._log})")
        reply = json.loads(line)
        if "error" in reply:
            raise Failed(f"{do}: {_short(reply['error'])} ({self._log})")
        return reply["value"]

    def _signal(self, number: signal.Signals) -> None:
        try:
            os.killpg(self._process.pid, number)
        except ProcessLookupError:  # it has ended, which the next reply, or the lack of it, tells
            return

    def _last_words(self) -> str:
        lines = self._log.read_text(errors="replace").splitlines()
        return _short(next((line for line in reversed(lines) if line.strip()), "it said nothing"))


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 300 else f"{line[:300]}..."
