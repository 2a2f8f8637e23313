"""Real `parkway up` processes for tests, and a model server whose answers a test lets through when it wants."""

from __future__ import annotations

import http.client
import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

PATIENCE_S = 90.0


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Polls until `condition` holds. What is waited for happens in other processes."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited {PATIENCE_S:g} s in vain for: {what}"
        time.sleep(0.02)


class Up:
    """One `parkway up` on a home of its own.

    Args:
        settings: Its configuration.
        home: Its home; the processes of a home are found by it, orphans too.
    """

    def __init__(self, home: Path, settings: dict[str, Any], *options: str) -> None:
        self.home = home
        self.config = home.parent / f"{home.name}.yaml"
        self.config.write_text(json.dumps(settings))  # JSON is YAML
        self.said = home.parent / f"{home.name}.said"
        self.url = ""
        with self.said.open("wb") as said:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "parkway", "up", "--config", str(self.config), "--port", "0", *options],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=said,
                env=environment(home),
                cwd=home.parent,
            )

    def ready(self) -> Up:
        """Waits for the announcement."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline().decode()
        assert line.startswith("ready http://127.0.0.1:"), f"{line!r}\n{self.told()}"
        self.url = line.split()[1]
        return self

    def told(self) -> str:
        """What it said on standard error so far."""
        return self.said.read_text()

    def wait(self) -> int:
        """Waits for its end; the exit code."""
        return self.process.wait(PATIENCE_S)

    def child(self, command: str) -> int | None:
        """The process id of the child that runs `parkway COMMAND`, if it runs."""
        for pid in processes_of(self.home):
            words = _read(pid, "cmdline").split(b"\0")
            if command.encode() in words and pid != self.process.pid:
                return pid
        return None

    def kill_child(self, command: str) -> None:
        """Kills a child with signal 9 and waits until another has taken its place."""
        before = self.child(command)
        assert before is not None
        os.kill(before, signal.SIGKILL)
        wait_until(lambda: self.child(command) not in (None, before), f"a new {command}")

    def key(self) -> str:
        return (self.home / "first.key").read_text().strip()

    def request(self, method: str, path: str, body: object = None) -> http.client.HTTPResponse:
        """Sends a request with the first key; the response, its body not read yet."""
        connection = http.client.HTTPConnection(str(urlsplit(self.url).netloc), timeout=PATIENCE_S)
        headers = {"authorization": f"Bearer {self.key()}", "content-type": "application/json"}
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        return connection.getresponse()

    def chat(self, model: str) -> http.client.HTTPResponse:
        body = {"model": model, "stream": True, "messages": [{"role": "user", "content": "hello"}]}
        return self.request("POST", "/v1/chat/completions", body)


@contextmanager
def up(home: Path, settings: dict[str, Any], *options: str) -> Iterator[Up]:
    """An `Up` that is gone at the end, with all that it started."""
    started = Up(home, settings, *options)
    try:
        yield started
    finally:
        started.process.kill()
        started.process.wait()
        for pid in processes_of(home):
            os.kill(pid, signal.SIGKILL)


def environment(home: Path) -> dict[str, str]:
    """That of this process, with its own home and without its own keys."""
    mine = {name: value for name, value in os.environ.items() if not name.startswith("PARKWAY_")}
    return {**mine, "PARKWAY_HOME": str(home)}


def parkway(home: Path, *arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    """Runs a command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "parkway", *arguments],
        input=text,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        env=environment(home),
        cwd=home.parent,
    )


def processes_of(home: Path) -> list[int]:
    """All running processes whose environment names this home, whoever their parent is."""
    wanted = f"PARKWAY_HOME={home}".encode()
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [
        pid
        for pid in pids
        if pid != os.getpid() and wanted in _read(pid, "environ").split(b"\0") and not _is_zombie(pid)
    ]


def _is_zombie(pid: int) -> bool:
    return _read(pid, "stat").rpartition(b")")[2].split()[:1] in ([b"Z"], [])


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


class SlowModel:
    """An OpenAI-compatible server that sends one word of an answer, and the rest when `go` is set.

    Attributes:
        left: Set when a client has gone before its answer was complete.
        messages: Those of every request, as they arrived.
    """

    def __init__(self) -> None:
        self.go = threading.Event()
        self.left = threading.Event()
        self.messages: list[list[dict[str, str]]] = []
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def close(self) -> None:
        self.go.set()
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        model = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._begin("application/json")
                self.wfile.write(b'{"object": "list", "data": []}')

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                model.messages.append(body["messages"])
                self._begin("text/event-stream")
                self._send("one")
                while not model.go.wait(0.02):
                    if self._client_left():
                        model.left.set()
                        return
                self._send(" two")
                self.wfile.write(b"data: [DONE]\n\n")

            def _client_left(self) -> bool:
                try:
                    return self.connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
                except BlockingIOError:
                    return False

            def _begin(self, kind: str) -> None:
                self.send_response(200)
                self.send_header("content-type", kind)
                self.end_headers()

            def _send(self, content: str) -> None:
                choice = {"index": 0, "delta": {"content": content}, "finish_reason": None}
                body = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
                self.wfile.write(b"data: " + json.dumps(body).encode() + b"\n\n")
                self.wfile.flush()

            def log_message(self, format: str, *args: object) -> None:
                pass

        return Handler
