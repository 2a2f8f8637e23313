"""The command line run inside the test, on a home of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from parkway.cli.main import run
from parkway.store.home import Home
from parkway.store.sql import Database


@dataclass(frozen=True)
class Done:
    """What a command left: exit code, standard output, standard error."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> object:
        return msgspec.json.decode(self.out)


Command = Callable[..., Done]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("PARKWAY_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("PARKWAY_API_KEY", raising=False)
    monkeypatch.chdir(tmp_path)
    return Home.open()


@pytest.fixture
def database(home: Home) -> Iterator[Database]:
    """The database that the commands will find on the home."""
    database = Database.open(home.database_url)
    database.migrate()
    yield database
    database.close()


@pytest.fixture
def parkway(home: Home, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs a command and returns what it left."""

    def command(*arguments: str) -> Done:
        capsys.readouterr()
        code = run(arguments)
        captured = capsys.readouterr()
        return Done(code, captured.out, captured.err)

    return command
