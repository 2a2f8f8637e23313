"""The registry in the store, and the view that follows it. What every registry promises is in `test_registries.py`."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace

import pytest
from sqlalchemy import insert, select

from parkway.core.errors import InvalidRequest
from parkway.router.endpoint import Endpoint
from parkway.router.registry import TOPIC, Registry
from parkway.router.view import View
from parkway.store.revisions import Watch
from parkway.store.schema import endpoints as table
from parkway.store.schema import revisions
from parkway.store.sql import Database
from tests.router.conftest import until


def endpoint(endpoint_id: str, **changes: object) -> Endpoint:
    values = {"endpoint_id": endpoint_id, "model": "m", "url": "http://h:1/v1", "upstream_model": "m", **changes}
    return Endpoint(**values)  # type: ignore[arg-type]


def revision(database: Database) -> int | None:
    with database.read() as connection:
        return connection.scalar(select(revisions.c.revision).where(revisions.c.topic == TOPIC))


def test_what_is_put_is_listed_as_it_was(database: Database) -> None:
    registry = Registry(database)
    full = endpoint("e2", url="http://h:2/v1", weight=7, state="draining", api_key_env="KEY", source="api")
    registry.put(full)
    registry.put(endpoint("e1", model="a"))
    assert registry.list() == [endpoint("e1", model="a"), full]


def test_put_replaces_by_id_and_keeps_when_it_was_made(database: Database) -> None:
    registry = Registry(database)
    registry.put(endpoint("e1"))
    with database.begin() as connection:
        connection.execute(table.update().values(created_ms=1, updated_ms=1))
    registry.put(endpoint("e1", state="down"))
    assert registry.list() == [endpoint("e1", state="down")]
    with database.read() as connection:
        created_ms, updated_ms = connection.execute(select(table.c.created_ms, table.c.updated_ms)).one()
    assert created_ms == 1
    assert updated_ms > 1


def test_remove(database: Database) -> None:
    registry = Registry(database)
    registry.put(endpoint("e1"))
    before = revision(database)
    assert registry.remove("e1")
    assert not registry.remove("e1")
    assert registry.list() == []
    assert revision(database) == (before or 0) + 1, "removing nothing is no change"


def test_replace_changes_one_source_only(database: Database) -> None:
    registry = Registry(database)
    registry.put(endpoint("local-1", source="local"))
    registry.replace("config", [endpoint("a"), endpoint("b")])
    registry.replace("config", [endpoint("b", weight=3), endpoint("c")])
    assert registry.list() == [
        endpoint("b", weight=3),
        endpoint("c"),
        endpoint("local-1", source="local"),
    ]
    registry.replace("config", [])
    assert registry.list() == [endpoint("local-1", source="local")]


def test_replace_takes_an_id_over_from_another_source(database: Database) -> None:
    registry = Registry(database)
    registry.put(endpoint("e1", source="local"))
    registry.replace("config", [endpoint("e1", url="http://h:2/v1")])
    assert registry.list() == [endpoint("e1", url="http://h:2/v1", source="config")]


def test_replace_refuses_an_id_given_twice_and_changes_nothing(database: Database) -> None:
    registry = Registry(database)
    registry.replace("config", [endpoint("a")])
    with pytest.raises(InvalidRequest, match="given twice: b"):
        registry.replace("config", [endpoint("b"), endpoint("b")])
    assert registry.list() == [endpoint("a")]


def test_every_change_is_told(database: Database) -> None:
    registry = Registry(database)
    seen = [revision(database)]
    for change in (
        lambda: registry.put(endpoint("a")),
        lambda: registry.replace("config", [endpoint("b")]),
        lambda: registry.remove("b"),
    ):
        change()
        seen.append(revision(database))
    assert seen == [None, 1, 2, 3]


def test_writers_at_once_lose_nothing(database: Database) -> None:
    registry = Registry(database)

    def write(name: str) -> None:
        for weight in range(1, 6):
            registry.put(endpoint(name, weight=weight))
            registry.put(endpoint("shared", weight=weight))

    threads = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {each.endpoint_id: each.weight for each in registry.list()} == dict.fromkeys([*"abcd", "shared"], 5)
    assert revision(database) == 40


def test_a_bad_row_does_not_take_the_others_away(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    registry = Registry(database)
    registry.put(endpoint("good"))
    with database.begin() as connection:
        row = {"endpoint_id": "bad", "model": "m", "url": "nonsense", "upstream_model": "m", "weight": 1}
        connection.execute(insert(table).values(**row, state="ready", source="api", created_ms=1, updated_ms=1))
    assert registry.list() == [endpoint("good")]
    assert "nonsense" in caplog.text


async def test_a_view_follows_another_process(database: Database) -> None:
    """A second connection stands for the other process: both only meet in the database."""
    registry, view = Registry(database), View()
    watch = Watch(database, [TOPIC], interval_s=0.01)

    async def follow() -> None:
        while True:
            await watch.changed()
            view.load(await database.run(registry.read, write=False))

    following = asyncio.ensure_future(follow())
    await asyncio.to_thread(registry.put, endpoint("e1", model="a"))
    await until(lambda: view.models() == ["a"])
    await asyncio.to_thread(registry.replace, "config", [endpoint("e2", model="b"), endpoint("e3", model="c")])
    await until(lambda: view.models() == ["b", "c"])
    await asyncio.to_thread(registry.put, replace(endpoint("e2", model="b"), state="down"))
    await until(lambda: view.endpoints("b")[0].state == "down")
    following.cancel()


def test_parkways_that_share_a_database_do_not_overwrite_one_another(database: Database) -> None:
    one, two = Registry(database, publisher="aa"), Registry(database, publisher="bb")
    Registry(database).replace("config", [endpoint("left")])  # written before there were publishers
    one.replace("config", [endpoint("m@0", url="http://one:1/v1")])
    two.replace("config", [endpoint("m@0", url="http://two:1/v1")])
    two.replace("local", [endpoint("m#0", source="local")])
    one.replace("local", [])
    assert one.list() == [endpoint("m@0", url="http://one:1/v1"), endpoint("m@0~bb", url="http://two:1/v1")]
    assert two.list() == [
        endpoint("m#0", source="local"),
        endpoint("m@0", url="http://two:1/v1"),
        endpoint("m@0~aa", url="http://one:1/v1"),
    ]
    one.close()
    assert [each.endpoint_id for each in two.list()] == ["m#0", "m@0"]
