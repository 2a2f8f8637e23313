"""Changes that come to an owner at the same time."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Barrier, BrokenBarrierError
from typing import Any

import pytest

from parkway.core.knowledge import NewCollection
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
