"""What an owner has open follows the store, also where it missed something in between."""

from __future__ import annotations

from pathlib import Path

from parkway.launch.owner import Owner
from parkway.launch.settings import Settings
from parkway.retrieval.catalogue import Partition
from parkway.retrieval.collections import Collections
from parkway.retrieval.config import CollectionConfig
from parkway.store.home import Home
from parkway.store.sql import Database
from tests.retrieval.index.corpus import passage, vectors


async def test_a_collection_that_was_removed_and_made_again_has_nothing_of_the_one_before(tmp_path: Path) -> None:
    database = Database.open(f"sqlite:///{tmp_path}/parkway.db")
    database.migrate()
    collections = Collections(database)
    (tmp_path / "knowledge/docs/uploads").mkdir(parents=True)
    second = Owner(Settings(), Home(tmp_path), database, Partition(1, 2), [], "token")
    collections.save({"docs": CollectionConfig()}, "api", 1)
    await second.opened.adopt()
    before = second.opened.get("docs")
    assert before is not None
    before.index.upsert([passage(1)], vectors(1, dimensions=384))
    await second.opened.adopt()
    assert second.opened.get("docs") is before
    collections.forget("docs")
    collections.save({"docs": CollectionConfig()}, "api", 2)
    await second.opened.adopt()
    again = second.opened.get("docs")
    assert again is not None
    assert again.index.documents() == {}
    await second.close()
    database.close()
