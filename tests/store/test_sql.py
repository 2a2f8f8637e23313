"""The contract of transactions, time limits and errors, on both databases."""

from __future__ import annotations

import asyncio
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from sqlalchemy import Connection, func, insert, select, text
from sqlalchemy.exc import IntegrityError

from parkway.core.errors import StartupError, StoreUnavailable
from parkway.store.config import StoreConfig
from parkway.store.schema import conversations, messages, revisions
from parkway.store.sql import Database
from tests.servers import Postgres

CONVERSATION = {"key_id": "k", "conversation_id": "c", "created_ms": 1, "updated_ms": 1}
MESSAGE = {"key_id": "k", "conversation_id": "c", "position": 0, "role": "user", "content": "{}", "created_ms": 1}


def topics(database: Database) -> list[str]:
    with database.read() as connection:
        return list(connection.execute(select(revisions.c.topic).order_by(revisions.c.topic)).scalars())


def add(connection: Connection, topic: str) -> None:
    connection.execute(insert(revisions).values(topic=topic, revision=1))


class TestTransactions:
    def test_a_block_that_ends_is_committed(self, database: Database) -> None:
        with database.begin() as connection:
            add(connection, "a")
        assert topics(database) == ["a"]

    def test_a_block_that_raises_leaves_nothing(self, database: Database) -> None:
        with pytest.raises(KeyError), database.begin() as connection:
            add(connection, "a")
            raise KeyError
        assert topics(database) == []

    def test_a_reader_sees_one_moment(self, database: Database) -> None:
        count = select(func.count()).select_from(revisions)
        with database.read() as reader:
            assert reader.execute(count).scalar_one() == 0
            with database.begin() as writer:
                add(writer, "a")
            assert reader.execute(count).scalar_one() == 0
        assert topics(database) == ["a"]

    def test_a_reader_cannot_write(self, database: Database) -> None:
        with pytest.raises(StoreUnavailable), database.read() as connection:
            add(connection, "a")
        with database.begin() as connection:  # the same pooled connection writes again
            add(connection, "b")
        assert topics(database) == ["b"]

    def test_messages_need_their_conversation_and_go_with_it(self, database: Database) -> None:
        with pytest.raises(IntegrityError), database.begin() as connection:
            connection.execute(insert(messages).values(MESSAGE))
        with database.begin() as connection:
            connection.execute(insert(conversations).values(CONVERSATION))
            connection.execute(insert(messages).values(MESSAGE))
            connection.execute(conversations.delete())
            assert connection.execute(select(func.count()).select_from(messages)).scalar_one() == 0

    def test_writers_of_many_threads_all_come_to_their_turn(self, database: Database) -> None:
        def write(number: int) -> None:
            for step in range(10):
                with database.begin() as connection:
                    add(connection, f"{number}-{step}")

        threads = [threading.Thread(target=write, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(topics(database)) == 60

    def test_a_writer_killed_in_a_transaction_leaves_nothing_and_holds_nobody_up(
        self, database: Database, database_url: str
    ) -> None:
        program = f"""
import sys, time
from sqlalchemy import text
from parkway.store.sql import Database
with Database.open({database_url!r}).begin() as connection:
    connection.execute(text("INSERT INTO revisions VALUES ('half', 1)"))
    print("written", flush=True)
    time.sleep(60)
"""
        writer = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"written\n"
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        with database.begin() as connection:
            add(connection, "whole")
        assert topics(database) == ["whole"]


class TestRun:
    async def test_returns_what_the_work_returns_and_commits_it(self, database: Database) -> None:
        assert await database.run(lambda connection: add(connection, "a") or 7) == 7
        assert await database.run(lambda c: c.execute(select(revisions.c.topic)).scalars().all(), write=False) == ["a"]

    async def test_raises_what_the_work_raises_and_rolls_back(self, database: Database) -> None:
        def work(connection: Connection) -> None:
            add(connection, "a")
            raise KeyError("mine")

        with pytest.raises(KeyError, match="mine"):
            await database.run(work)
        assert topics(database) == []

    async def test_a_caller_out_of_time_leaves_nothing_behind(self, database: Database) -> None:
        late = threading.Event()

        def work(connection: Connection) -> None:
            add(connection, "late")
            late.wait(10)

        with pytest.raises(StoreUnavailable, match=r"did not answer within 0\.05 s") as caught:
            await database.run(work, timeout_s=0.05)
        assert caught.value.retry_after_s == 1.0
        late.set()
        await database.run(lambda connection: add(connection, "next"))
        database.close()  # waits for the one under way
        assert "late" not in topics(database)

    async def test_a_cancelled_caller_leaves_nothing_behind(self, database: Database) -> None:
        late, begun = threading.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()

        def work(connection: Connection) -> None:
            add(connection, "late")
            loop.call_soon_threadsafe(begun.set)
            late.wait(10)

        caller = asyncio.ensure_future(database.run(work))
        await begun.wait()
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        late.set()
        await database.run(lambda connection: add(connection, "next"))
        database.close()
        assert topics(database) == ["next"]

    async def test_refuses_when_too_many_wait(self, database_url: str) -> None:
        database = Database.open(database_url, StoreConfig(threads=1, waiting=2))
        free, begun = threading.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()

        def hold(_: Connection) -> None:
            loop.call_soon_threadsafe(begun.set)
            free.wait(10)

        def nothing(_: Connection) -> None:
            pass

        async with asyncio.TaskGroup() as group:
            group.create_task(database.run(hold))
            await begun.wait()
            for _ in range(2):
                group.create_task(database.run(nothing))
            await asyncio.sleep(0)
            with pytest.raises(StoreUnavailable, match="2 jobs wait"):
                await database.run(nothing)
            free.set()
        database.close()

    async def test_after_close_it_refuses(self, database: Database) -> None:
        database.close()
        with pytest.raises(StoreUnavailable, match="closed"):
            await database.run(lambda _: None)

    async def test_maintenance_waits_for_nobody(self, database_url: str) -> None:
        database = Database.open(database_url, StoreConfig(lock_timeout_s=60))
        database.migrate()
        with database.read() as connection:
            connection.execute(select(revisions)).all()
            await database.run(lambda connection: add(connection, "a"))
            await database.maintain(timeout_s=10)
        await database.maintain()
        assert topics(database) == ["a"]
        database.close()

    async def test_maintenance_empties_the_write_ahead_log(self, tmp_path: Path) -> None:
        database = Database.open(f"sqlite:///{tmp_path}/parkway.db")
        database.migrate()
        log = tmp_path / "parkway.db-wal"
        assert log.stat().st_size > 0
        await database.maintain()
        assert log.stat().st_size == 0
        database.close()


class TestOpen:
    @pytest.mark.parametrize(
        ("url", "said"),
        [
            ("nonsense", "not a database URL"),
            ("", "not a database URL"),
            ("mysql://u:secret@h/d", "mysql:// is not supported"),
            ("sqlite://", "in memory"),
            ("sqlite:///:memory:", "in memory"),
            ("sqlite:////no/such/folder/x.db", "No such file or directory"),
            ("sqlite:////proc/version", "cannot be opened for writing|cannot be used"),
            ("postgresql://u:secret@127.0.0.1:1/d?connect_timeout=1&password=secret", "cannot be used"),
            ("postgresql://u:secret@127.0.0.1:port/d", "not a database URL"),
        ],
    )
    def test_a_wrong_url_is_told_without_its_password(self, url: str, said: str) -> None:
        with pytest.raises(StartupError, match=said) as caught:
            Database.open(url)
        assert "secret" not in str(caught.value)

    def test_a_file_that_is_no_database_is_told(self, tmp_path: Path) -> None:
        (tmp_path / "x.db").write_bytes(b"this is a letter to my grandmother\n" * 100)
        with pytest.raises(StartupError, match="not a database"):
            Database.open(f"sqlite:///{tmp_path}/x.db")

    def test_an_unwritable_file_is_told(self, somebody_elses: Path) -> None:
        with pytest.raises(StartupError, match="cannot be opened for writing: Permission denied"):
            Database.open(f"sqlite:///{somebody_elses}/parkway.db")

    def test_only_the_owner_can_read_the_file(self, tmp_path: Path) -> None:
        database = Database.open(f"sqlite:///{tmp_path}/parkway.db")
        database.migrate()
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
        database.close()
        assert modes == {"parkway.db": 0o600, "parkway.db-wal": 0o600, "parkway.db-shm": 0o600}

    def test_a_read_only_server_is_told(self, postgres: Postgres) -> None:
        url = postgres.create_database()
        with pytest.raises(StartupError, match="takes no writes"):
            Database.open(f"{url}&options=-c default_transaction_read_only=on")

    def test_another_encoding_is_told(self, postgres: Postgres) -> None:
        postgres.execute("CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0 LOCALE 'C'")
        with pytest.raises(StartupError, match="encoding LATIN1"):
            Database.open(postgres.url("latin"))

    def test_its_repr_holds_no_password(self, postgres: Postgres) -> None:
        url = postgres.create_database().replace("parkway@", "parkway:hunter2@") + "&password=hunter2"
        database = Database.open(url)
        database.close()
        assert "hunter2" not in repr(database)


class TestFaults:
    async def test_a_stopped_server_is_unavailable_and_a_restarted_one_serves(self) -> None:
        server = Postgres()
        database = Database.open(server.create_database(), StoreConfig(connect_timeout_s=1))
        database.migrate()
        server.stop()
        with pytest.raises(StoreUnavailable) as caught:
            await database.run(lambda connection: add(connection, "a"))
        assert str(server.url("x")) not in caught.value.message
        assert caught.value.__cause__ is not None
        server.start()
        await database.run(lambda connection: add(connection, "b"))
        assert topics(database) == ["b"]
        database.close()
        server.close()

    async def test_a_connection_cut_in_a_transaction_is_unavailable(self, postgres: Postgres) -> None:
        database = Database.open(postgres.create_database())
        with pytest.raises(StoreUnavailable):
            await database.run(lambda c: c.execute(text("SELECT pg_terminate_backend(pg_backend_pid())")))
        assert await database.run(lambda c: c.execute(text("SELECT 1")).scalar_one()) == 1
        database.close()

    async def test_a_statement_without_end_is_cut(self, postgres: Postgres) -> None:
        database = Database.open(postgres.create_database(), StoreConfig(statement_timeout_s=0.1))
        with pytest.raises(StoreUnavailable, match="57014"):
            await database.run(lambda connection: connection.execute(text("SELECT pg_sleep(60)")))
        database.close()

    def test_a_database_locked_by_another_process_is_unavailable_after_the_wait(self, tmp_path: Path) -> None:
        url = f"sqlite:///{tmp_path}/parkway.db"
        first, second = Database.open(url), Database.open(url, StoreConfig(lock_timeout_s=0.05))
        with (
            first.begin(),
            pytest.raises(StoreUnavailable, match="database is locked"),
            second.begin(),
        ):
            pass
        with second.begin():  # nothing is left of the failure
            pass
        first.close()
        second.close()

    def test_a_disk_that_fills_up_is_unavailable_and_recovers(self, small_disk: Path) -> None:
        database = Database.open(f"sqlite:///{small_disk}/parkway.db")
        database.migrate()
        with pytest.raises(StoreUnavailable, match="full"), database.begin() as connection:
            for number in range(100):
                add(connection, f"{number}" + "x" * 100_000)
        with database.begin() as connection:
            add(connection, "small")
        assert topics(database) == ["small"]
        database.close()
