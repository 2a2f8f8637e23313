"""Changes that come to an owner at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Barrier, BrokenBarrierError, Event
from types import SimpleNamespace
from typing import Any

import pytest

from parkway.core.knowledge import NewCollection, NewDocument
from parkway.core.tasks import Tasks
from parkway.launch.owner import Owner
from parkway.launch.settings import Settings
from parkway.retrieval.catalogue import Partition
from parkway.retrieval.collections import Collections
from parkway.store.home import Home
from parkway.store.sql import Database


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[Owner]:
    home = Home.open(tmp_path)
    database = Database.open(home.database_url)
    database.migrate()
    yield Owner(Settings(), home, database, Partition(), [], "token")
    database.close()


async def test_uploads_that_come_slowly_hold_up_nothing_else(owner: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    may_end = Event()
    ingestion = SimpleNamespace(put=lambda *_: may_end.wait(30))
    monkeypatch.setattr(owner, "_opened", lambda _: SimpleNamespace(ingestion=ingestion))

    async def nothing() -> AsyncIterator[bytes]:
        yield b""

    async with Tasks("test") as tasks:
        for number in range(40):
            tasks.start(owner.add_document("docs", NewDocument(uri=str(number)), nothing()), name="upload")
        await asyncio.sleep(0.1)
        try:
            assert await asyncio.wait_for(owner.collections(), 10) == []
        finally:
            may_end.set()


def test_folders_that_are_added_at_the_same_time_are_all_added(
    owner: Owner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = Barrier(2)
    read = Collections.all

    def slowly(self: Collections) -> dict[str, Any]:
        found = read(self)
        with suppress(BrokenBarrierError):
            both.wait(0.3)  # for the other one to have read the same
        return found

    monkeypatch.setattr(Collections, "all", slowly)
    folders = [tmp_path / name for name in ("a", "b")]
    for folder in folders:
        folder.mkdir()
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda folder: owner._save("docs", NewCollection(paths=[str(folder)])), folders))
    assert {source.path for source in read(owner._collections)["docs"].config.sources} == set(map(str, folders))
