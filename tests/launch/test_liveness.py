"""Children that hang, with real processes."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from parkway.core.tasks import Tasks
from parkway.launch.backoff import Backoff
from parkway.launch.child import Child, Program
from parkway.launch.liveness import watch
from parkway.launch.log_file import LogFile

SERVES = """
import http.server
class Alive(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Alive) as server:
    print(f"ready http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
"""
SILENT = """
import socket, time
with socket.create_server(("127.0.0.1", 0)) as server:
    print(f"ready http://127.0.0.1:{server.getsockname()[1]}", flush=True)
    time.sleep(600)
"""


class Watched:
    """A child that runs a piece of Python and is watched."""

    def __init__(self, code: str, folder: Path, tasks: Tasks, patience_s: float) -> None:
        self.told: list[str] = []
        self.ports: list[int] = []
        self.up: asyncio.Queue[int] = asyncio.Queue()
        program = Program("probe", (sys.executable, "-c", code))
        self.child = Child(
            program,
            LogFile(folder, "probe"),
            self.told.append,
            on_change=lambda state, address: self._changed(state, address),
            backoff=Backoff(first_s=0.01, most_s=0.05),
        )
        tasks.start(self.child.run(), name="probe")
        tasks.start(watch(self.child, self._address, patience_s), name="liveness")

    def _changed(self, state: str, address: str) -> None:
        if state == "ready":
            self.ports.append(int(address.rpartition(":")[2]))
            self.up.put_nowait(self.ports[-1])

    def _address(self) -> tuple[str, int] | None:
        return ("127.0.0.1", self.ports[-1]) if self.ports else None


async def test_one_that_hangs_is_started_again(tmp_path: Path) -> None:
    async with asyncio.timeout(60), Tasks("test") as tasks:
        watched = Watched(SERVES, tmp_path, tasks, patience_s=1.2)
        await watched.up.get()
        await asyncio.sleep(0.5)  # it has answered at least once by then
        assert watched.child.pid is not None
        os.kill(watched.child.pid, signal.SIGSTOP)
        await watched.up.get()
        assert "probe has not answered for 1.2 s and is killed" in watched.told
        await watched.child.stop(5.0)


async def test_one_that_answers_is_left_alone(tmp_path: Path) -> None:
    async with Tasks("test") as tasks:
        watched = Watched(SERVES, tmp_path, tasks, patience_s=3.0)
        await watched.up.get()
        await asyncio.sleep(4.0)
        assert not watched.told
        await watched.child.stop(5.0)


async def test_one_that_never_answered_is_not_taken_to_hang(tmp_path: Path) -> None:
    async with Tasks("test") as tasks:
        watched = Watched(SILENT, tmp_path, tasks, patience_s=0.3)
        await watched.up.get()
        await asyncio.sleep(1.0)
        assert not watched.told
        await watched.child.stop(5.0)
