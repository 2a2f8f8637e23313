"""Fixtures that every part's tests share. Whatever touches the database runs on SQLite and on PostgreSQL."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from parkway.store.sql import Database
from tests.servers import Etcd, Missing, Postgres, Redis, with_pgvector

# A shell that runs the tests in the background has its jobs ignore Ctrl-C, and every process that a test starts would
# inherit that: the tests that press it would wait in vain.
signal.signal(signal.SIGINT, signal.default_int_handler)

# On a busy machine any example may take long, and no test is about wall-clock time.
settings.register_profile("parkway", deadline=None)
settings.load_profile("parkway")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server for the whole run; where there can be none, the test is skipped and says why."""
    try:
        server = Postgres()
    except Missing as error:
        pytest.skip(f"needs PostgreSQL: {error}")
    yield server
    server.close()


@pytest.fixture(scope="session")
def vector_postgres() -> Iterator[Postgres]:
    """A PostgreSQL with pgvector for the whole run; where there is none, the test is skipped and says why."""
    try:
        server = Postgres(with_pgvector())
    except Missing as error:
        pytest.skip(f"needs PostgreSQL with pgvector: {error}")
    yield server
    server.close()


@pytest.fixture(scope="session")
def vector_database(vector_postgres: Postgres) -> str:
    """The URL of a database for all tests."""
    return vector_postgres.create_database()


@pytest.fixture(scope="session")
def redis_server() -> Iterator[Redis]:
    """A Redis server for the whole run, which a test may find with what others left in it; else the test is skipped."""
    try:
        server = Redis()
    except Missing as error:
        pytest.skip(f"needs Redis: {error}")
    yield server
    server.stop()


@pytest.fixture(scope="session")
def etcd() -> Iterator[Etcd]:
    """An etcd for the whole run, which a test may find with what others left in it; else the test is skipped."""
    try:
        server = Etcd()
    except Missing as error:
        pytest.skip(f"needs etcd: {error}")
    yield server
    server.close()


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database: the test runs once on each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/parkway.db"
    server: Postgres = request.getfixturevalue("postgres")
    return server.create_database()


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """An open database with its tables made: the test runs once on each kind."""
    database = Database.open(database_url)
    database.migrate()
    yield database
    database.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 2 MiB; where none can be mounted, the test is skipped."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"needs the right to mount a small disk: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture
def somebody_elses() -> Iterator[Path]:
    """A folder that can be read and not written to; a test run as root is nobody while it has it."""
    # Not under tmp_path, which nobody but its owner may enter.
    folder = Path(tempfile.mkdtemp(prefix="parkway-test-", dir="/tmp"))
    folder.chmod(0o555)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    yield folder
    if root:
        os.seteuid(0)
    folder.chmod(0o700)
    shutil.rmtree(folder)
