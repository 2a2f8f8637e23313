"""A change is seen by every watcher, in this process and in others, and an outage is waited out."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys

import pytest
from sqlalchemy import select

from parkway.store.config import StoreConfig
from parkway.store.revisions import Watch, bump
from parkway.store.schema import revisions
from parkway.store.sql import Database
from tests.servers import Postgres


async def soon(watch: Watch) -> frozenset[str]:
    return await asyncio.wait_for(watch.changed(), 20)


def raise_topic(database: Database, topic: str) -> None:
    with database.begin() as connection:
        bump(connection, topic)


async def test_the_first_answer_is_every_topic(database: Database) -> None:
    raise_topic(database, "keys")
    assert await soon(Watch(database, ["keys", "endpoints"])) == {"keys", "endpoints"}


async def test_a_change_is_told_once_and_by_topic(database: Database) -> None:
    watch = Watch(database, ["keys", "endpoints"], interval_s=0.01)
    await soon(watch)
    raise_topic(database, "keys")
    raise_topic(database, "keys")
    raise_topic(database, "somebody else's")
    assert await soon(watch) == {"keys"}
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(watch.changed(), 0.1)
    raise_topic(database, "endpoints")
    assert await soon(watch) == {"endpoints"}


async def test_a_change_that_was_rolled_back_is_not_told(database: Database) -> None:
    watch = Watch(database, ["keys"], interval_s=0.01)
    await soon(watch)
    with pytest.raises(KeyError), database.begin() as connection:
        bump(connection, "keys")
        raise KeyError
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(watch.changed(), 0.1)


async def test_a_restored_copy_counts_as_a_change(database: Database) -> None:
    raise_topic(database, "keys")
    watch = Watch(database, ["keys"], interval_s=0.01)
    await soon(watch)
    with database.begin() as connection:
        connection.execute(revisions.delete())
    assert await soon(watch) == {"keys"}


async def test_a_change_of_another_process_is_told(database: Database, database_url: str) -> None:
    watch = Watch(database, ["keys"], interval_s=0.01)
    await soon(watch)
    program = (
        "from parkway.store.sql import Database; from parkway.store.revisions import bump\n"
        f"with Database.open({database_url!r}).begin() as connection: bump(connection, 'keys')"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program)
    assert await soon(watch) == {"keys"}
    assert await process.wait() == 0


async def test_iterates_topic_by_topic(database: Database) -> None:
    seen = []
    async for topic in Watch(database, ["b", "a"], interval_s=0.01):
        seen.append(topic)
        if len(seen) == 2:
            raise_topic(database, "b")
        if len(seen) == 3:
            break
    assert seen == ["a", "b", "b"]


def test_writers_of_one_topic_lose_no_count(database: Database, database_url: str) -> None:
    program = (
        "from parkway.store.sql import Database; from parkway.store.revisions import bump\n"
        f"database = Database.open({database_url!r})\n"
        "for _ in range(50):\n"
        "    with database.begin() as connection: bump(connection, 'new')"
    )
    processes = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    with database.read() as connection:
        assert connection.execute(select(revisions.c.revision)).scalar_one() == 150


async def test_an_outage_is_waited_out_and_told_once(caplog: pytest.LogCaptureFixture) -> None:
    server = Postgres()
    database = Database.open(server.create_database(), StoreConfig(connect_timeout_s=1))
    database.migrate()
    watch = Watch(database, ["keys"], interval_s=0.01)
    await soon(watch)
    server.stop()
    with caplog.at_level(logging.WARNING):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(watch.changed(), 0.5)
        server.start()
        raise_topic(database, "keys")
        assert await soon(watch) == {"keys"}
    told = [record.message for record in caplog.records if record.name == "parkway.store.revisions"]
    assert len(told) == 2
    assert "go unseen" in told[0]
    assert "is back" in told[1]
    database.close()
    server.close()
