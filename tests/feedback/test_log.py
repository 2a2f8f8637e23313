"""The request log: nothing waits for it, nothing is lost while the store is away, what is shed is counted."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import func, select, text

from parkway.core.tasks import Tasks
from parkway.feedback.config import FeedbackConfig
from parkway.feedback.log import RequestLog, write
from parkway.store import schema
from parkway.store.config import StoreConfig
from parkway.store.sql import Database
from tests.feedback.records import make_record
from tests.servers import Postgres

QUICK = FeedbackConfig(flush_interval_s=0.01)


@pytest.fixture
async def tasks() -> AsyncIterator[Tasks]:
    async with Tasks("test") as tasks:
        yield tasks


def rows(database: Database) -> list[dict[str, Any]]:
    with database.read() as connection:
        query = select(schema.requests).order_by(schema.requests.c.request_id)
        return [dict(row._mapping) for row in connection.execute(query)]


def count(database: Database) -> int:
    with database.read() as connection:
        return connection.scalar(select(func.count()).select_from(schema.requests)) or 0


async def until(seen: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        # What is waited for happens in the database or in a log, where nobody sets an event.
        while not await asyncio.to_thread(seen):  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def until_count(database: Database, expected: int) -> None:
    await until(lambda: count(database) == expected)


async def test_a_record_is_stored_as_it_was(database: Database, tasks: Tasks) -> None:
    log = RequestLog(database, QUICK)
    log.start(tasks)
    full = make_record()
    bare = make_record(
        response_id=None,
        endpoint_id=None,
        prompt_tokens=None,
        completion_tokens=None,
        first_token_ms=None,
        conversation_id=None,
        stream=False,
        status=429,
        outcome="rate_limit_exceeded",
        attempts=0,
    )
    log.append(full)
    log.append(bare)
    await until_count(database, 2)
    expected = sorted([full, bare], key=lambda record: record.request_id)
    assert rows(database) == [msgspec.structs.asdict(record) for record in expected]


async def test_more_than_a_batch_is_written_in_order_and_whole(database: Database, tasks: Tasks) -> None:
    log = RequestLog(database, FeedbackConfig(batch_size=7, flush_interval_s=0.01))
    log.start(tasks)
    records = [make_record() for _ in range(50)]
    for record in records:
        log.append(record)
    await until_count(database, 50)
    assert {row["request_id"] for row in rows(database)} == {record.request_id for record in records}


async def test_closing_writes_what_is_left(database: Database, tasks: Tasks) -> None:
    log = RequestLog(database, FeedbackConfig(flush_interval_s=60))
    log.start(tasks)
    await asyncio.sleep(0)
    for _ in range(1200):
        log.append(make_record())
    await log.close()
    assert count(database) == 1200
    assert log.shed == 0


async def test_closing_works_after_the_tasks_were_closed(database: Database) -> None:
    log = RequestLog(database, FeedbackConfig(flush_interval_s=60))
    async with Tasks("test") as tasks:
        log.start(tasks)
        log.append(make_record())
    await log.close()
    assert count(database) == 1


class TestFind:
    async def test_a_pending_record_is_found_by_both_ids_of_its_key_only(self, database: Database) -> None:
        log = RequestLog(database, QUICK)
        record = make_record(request_id="req_1", response_id="chatcmpl-1", key_id="alice")
        log.append(record)
        assert log.find("req_1", "alice") is record
        assert log.find("chatcmpl-1", "alice") is record
        assert log.find("req_1", "bob") is None
        assert log.find("chatcmpl-1", "bob") is None
        assert log.find("req_2", "alice") is None

    async def test_one_that_is_stored_is_no_longer_held(self, database: Database) -> None:
        log = RequestLog(database, QUICK)
        log.append(make_record(request_id="req_1", response_id="chatcmpl-1"))
        await log.close()
        assert log.find("req_1", "alice") is None
        assert log.find("chatcmpl-1", "alice") is None

    async def test_an_endpoint_that_repeats_its_ids_confuses_nobody(self, database: Database) -> None:
        log = RequestLog(database, QUICK)
        for request_id, key_id in [("req_1", "alice"), ("req_2", "alice"), ("req_3", "bob")]:
            log.append(make_record(request_id=request_id, response_id="same", key_id=key_id))
        found = [log.find("same", key_id) for key_id in ("alice", "bob")]
        assert [record and record.request_id for record in found] == ["req_2", "req_3"]
        await log.close()
        assert count(database) == 3
        assert log.find("same", "alice") is None


class TestShedding:
    async def test_a_full_queue_sheds_counts_and_says_so_once_a_minute(
        self, database: Database, caplog: pytest.LogCaptureFixture
    ) -> None:
        now = 0.0
        log = RequestLog(database, FeedbackConfig(queue_size=3), clock=lambda: now)
        with caplog.at_level(logging.WARNING):
            for _ in range(10):
                log.append(make_record())
            assert log.shed == 7
            assert len(caplog.records) == 1
            assert "feedback.queue_size" in caplog.text
            now = 61.0
            log.append(make_record())
        assert log.shed == 8
        assert len(caplog.records) == 2
        await log.close()
        assert count(database) == 3

    async def test_what_the_store_will_never_take_does_not_hold_up_the_rest(self, database: Database) -> None:
        log = RequestLog(database, QUICK)
        good = [make_record() for _ in range(3)]
        for record in [good[0], make_record(prompt_tokens=2**70), *good[1:]]:
            log.append(record)
        await log.close()
        assert {row["request_id"] for row in rows(database)} == {record.request_id for record in good}
        assert log.shed == 1

    async def test_names_that_strangers_chose_are_cut_to_what_fits(self, database: Database) -> None:
        log = RequestLog(database, QUICK)
        log.append(make_record(model="m\0\x1b[31m" + "x" * 1000, response_id="\0", outcome="o" * 1000))
        await log.close()
        (row,) = rows(database)
        assert row["model"] == "m??[31m" + "x" * 121
        assert row["response_id"] == "?"
        assert row["outcome"] == "o" * 128
        assert log.shed == 0


class TestStoreAway:
    async def test_records_wait_until_the_store_is_back(
        self, database: Database, tasks: Tasks, caplog: pytest.LogCaptureFixture
    ) -> None:
        log = RequestLog(database, FeedbackConfig(flush_interval_s=0.01, batch_size=2))
        with database.begin() as connection:
            connection.execute(text("ALTER TABLE requests RENAME TO away"))
        log.start(tasks)
        for _ in range(5):
            log.append(make_record())
        await until(lambda: "is away" in caplog.text)
        with database.begin() as connection:
            connection.execute(text("ALTER TABLE away RENAME TO requests"))
        await until_count(database, 5)
        assert log.shed == 0
        assert caplog.text.count("is away") == 1

    async def test_a_postgres_that_crashes_and_comes_back_has_every_record(self, postgres: Postgres) -> None:
        database = Database.open(postgres.create_database())
        database.migrate()
        log = RequestLog(database, QUICK)
        async with Tasks("test") as tasks:
            log.start(tasks)
            log.append(make_record())
            await until_count(database, 1)
            postgres.stop()
            try:
                for _ in range(20):
                    log.append(make_record())
                    await asyncio.sleep(0.01)
            finally:
                postgres.start()  # on this thread: the kernel ends the server with the thread that started it
            await until_count(database, 21)
            assert log.shed == 0
            await log.close()
        database.close()

    async def test_closing_gives_up_after_its_time_and_counts_what_it_gave_up(self, tmp_path: Path) -> None:
        database = Database.open(f"sqlite:///{tmp_path}/parkway.db", StoreConfig(lock_timeout_s=0.05))
        database.migrate()
        log = RequestLog(database, QUICK)
        for _ in range(4):
            log.append(make_record())
        with database.begin():  # another writer that does not let go
            await log.close(timeout_s=0.2)
        assert log.shed == 4
        assert log.find("req_1", "alice") is None
        database.close()


def test_a_batch_written_twice_is_there_once(database: Database) -> None:
    batch = [make_record() for _ in range(3)]
    for _ in range(2):
        with database.begin() as connection:
            assert write(connection, batch) == 0
    assert count(database) == 3
