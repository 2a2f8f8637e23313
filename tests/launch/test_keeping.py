"""Keeping the audit log: seals, the head that is noted in the home, and what is too old."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from parkway.core.errors import StartupError
from parkway.launch.keeping import Keeping, noted_head
from parkway.policy.audit import AuditConfig
from parkway.policy.chain import Entry, append, links, now_ms, read_key
from parkway.policy.verification import verify
from parkway.store.home import Home
from parkway.store.sql import Database

_DAY_MS = 86_400_000


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.open(tmp_path / "home")


@pytest.fixture
def database(home: Home) -> Iterator[Database]:
    database = Database.open(home.database_url)
    database.migrate()
    yield database
    database.close()


def write(database: Database, *ages_days: float) -> None:
    with database.begin() as connection:
        append(
            connection,
            [Entry(kind="allow", action="chat", at_ms=now_ms() - round(age * _DAY_MS)) for age in ages_days],
        )


async def test_the_end_is_sealed_and_noted_as_often_as_it_moves(database: Database, home: Home) -> None:
    keeping = Keeping(database, AuditConfig(), home)
    await keeping.anchor()
    assert noted_head(home) is None, "there is nothing to seal yet"
    write(database, 0, 0)
    await keeping.anchor()
    await keeping.anchor()
    head = noted_head(home)
    assert head is not None
    assert head.sequence == 3
    assert home.audit_anchor_file.stat().st_mode & 0o777 == 0o600
    with database.read() as connection:
        report = verify(lambda: links(connection), read_key(home.audit_key_file), [head])
    assert (report.faults, report.sealed, report.sealed_to) == ([], 1, 2)


async def test_what_is_too_old_goes_and_the_rest_stays_provable(database: Database, home: Home) -> None:
    keeping = Keeping(database, AuditConfig(retention_days=30), home)
    write(database, 60, 50, 40, 20, 10)
    assert await keeping.retire() == 3
    assert await keeping.retire() == 0
    with database.read() as connection:
        report = verify(lambda: links(connection), read_key(home.audit_key_file))
    assert (report.faults, report.entries, report.first) == ([], 4, 4)


def test_a_key_that_was_named_has_to_be_there(database: Database, home: Home) -> None:
    with pytest.raises(StartupError, match=r"does not exist; it is audit\.key_file"):
        Keeping(database, AuditConfig(key_file=str(home.path / "absent.key")), home)
