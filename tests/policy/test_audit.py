"""The audit log in memory: nothing waits for it, nothing is lost in silence, repeats are counted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from parkway.core.errors import StoreUnavailable
from parkway.core.tasks import Tasks
from parkway.policy.audit import AuditConfig, AuditLog
from parkway.policy.chain import Entry, decode_entry, links
from parkway.policy.repeats import ALL_TOGETHER, MAX_SUBJECTS, WINDOW_S, Repeats
from parkway.policy.verification import verify
from parkway.store.sql import Database


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """Of the quick kind: what the chain does on each kind is tested with the chain."""
    database = Database.open(f"sqlite:///{tmp_path}/parkway.db")
    database.migrate()
    yield database
    database.close()


def entry(number: int = 0, **values: object) -> Entry:
    return Entry(**{"kind": "allow", "action": "chat", "at_ms": number, **values})


def refusal(source: str, code: str = "invalid_api_key") -> Entry:
    return entry(kind="deny", outcome=code, source=source)


@pytest.fixture
async def tasks() -> AsyncIterator[Tasks]:
    async with Tasks("test") as tasks:
        yield tasks


def stored(database: Database) -> list[Entry]:
    with database.read() as connection:
        assert verify(lambda: links(connection)).faults == []
        return [decode_entry(link.entry) for link in links(connection)][1:]


async def test_entries_are_stored_in_order_of_arrival(database: Database, tasks: Tasks) -> None:
    log = AuditLog(database, AuditConfig(flush_interval_s=0.01, batch_size=3))
    log.start(tasks)
    for number in range(10):
        log.append(entry(number))
    await log.close()
    assert [found.at_ms for found in stored(database)] == list(range(10))


async def test_what_a_full_queue_loses_has_an_entry_that_says_so(database: Database) -> None:
    log = AuditLog(database, AuditConfig(queue_size=3, on_full="shed"))
    for number in range(8):
        log.append(entry(number))
    assert log.full
    await log.room()  # does not wait
    await log.close()
    assert [(found.kind, found.count) for found in stored(database)] == [*[("allow", 1)] * 3, ("lost", 5)]
    assert log.lost == 5


async def test_a_request_waits_briefly_for_room(database: Database, tasks: Tasks) -> None:
    log = AuditLog(database, AuditConfig(queue_size=2, block_s=30, flush_interval_s=0.01))
    for number in range(2):
        log.append(entry(number))
    log.start(tasks)
    async with asyncio.timeout(20):
        await log.room()
    assert not log.full
    await log.close()


async def test_a_request_does_not_wait_longer_than_it_should(database: Database) -> None:
    log = AuditLog(database, AuditConfig(queue_size=1, block_s=0.05))
    log.append(entry())
    await log.room()
    assert log.full, "nobody writes: it gave up"
    await log.close()


async def test_nothing_is_lost_while_the_store_is_away(
    database: Database, tasks: Tasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = AuditLog(database, AuditConfig(flush_interval_s=0.01))
    run, away = database.run, True

    async def failing(*arguments: object, **options: object) -> object:
        if away:
            raise StoreUnavailable("away")
        return await run(*arguments, **options)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(database, "run", failing)
    log.start(tasks)
    log.append(entry(1))
    await asyncio.sleep(0.05)
    log.append(entry(2))
    away = False
    await log.close()
    assert [found.at_ms for found in stored(database)] == [1, 2]


async def test_a_store_that_stays_away_is_told_at_the_end(
    database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def failing(*arguments: object, **options: object) -> object:
        raise StoreUnavailable("away")

    monkeypatch.setattr(database, "run", failing)
    log = AuditLog(database, AuditConfig())
    log.append(entry())
    await log.close(timeout_s=0.05)
    assert log.lost == 1
    assert "1 entries are lost" in caplog.text


async def test_long_names_are_cut(database: Database) -> None:
    log = AuditLog(database, AuditConfig())
    log.append(entry(model="m" * 10_000, detail="d" * 10_000))
    await log.close()
    (found,) = stored(database)
    assert (len(found.model), len(found.detail)) == (128, 1000)


async def test_a_flood_of_refusals_is_counted_and_not_stored(database: Database) -> None:
    log = AuditLog(database, AuditConfig(repeats_per_minute=3))
    for _ in range(1000):
        log.refuse(refusal("10.0.0.1"))
    log.refuse(refusal("10.0.0.2"))
    await log.close()
    found = [(each.kind, each.source, each.count) for each in stored(database)]
    assert found == [*[("deny", "10.0.0.1", 1)] * 3, ("deny", "10.0.0.2", 1), ("suppressed", "10.0.0.1", 997)]


def test_after_a_minute_it_begins_anew() -> None:
    now = 0.0
    repeats = Repeats(1, clock=lambda: now)
    assert [repeats.passes(refusal("a")) for _ in range(3)] == [True, False, False]
    assert repeats.due() == []
    now = WINDOW_S
    (said,) = repeats.due()
    assert (said.kind, said.action, said.outcome, said.source, said.count) == (
        "suppressed", "deny", "invalid_api_key", "a", 2,
    )  # fmt: skip
    assert repeats.passes(refusal("a"))


def test_one_kind_does_not_hide_another() -> None:
    repeats = Repeats(1)
    assert repeats.passes(refusal("a"))
    assert repeats.passes(refusal("a", "missing_api_key"))
    assert repeats.passes(entry(kind="limit", outcome="rate_limit_exceeded", key_id="k"))


def test_many_addresses_are_no_way_around_it() -> None:
    repeats = Repeats(2)
    passed = sum(repeats.passes(refusal(f"10.0.{number // 250}.{number % 250}")) for number in range(50_000))
    assert passed == 2 * ALL_TOGETHER
    said = repeats.due(at_once=True)
    assert len(said) <= MAX_SUBJECTS + 1
    assert sum(each.count for each in said) == 50_000 - passed
