"""A replica of documents that lie in a server asks that, for every partition."""

from __future__ import annotations

from pathlib import Path

import pytest

from parkway.core.knowledge import Search
from parkway.launch.owners import VARIABLE
from parkway.launch.replica import Replica
from parkway.launch.settings import Settings
from parkway.retrieval.collections import Collections
from parkway.retrieval.config import CollectionConfig
from parkway.retrieval.index.opening import open_index
from parkway.store.home import Home
from parkway.store.sql import Database
from tests.retrieval.index.corpus import passage, vectors

DIMENSIONS = 384
NOBODY = "http://127.0.0.1:9"


async def test_it_asks_the_index_of_each_partition_itself(
    vector_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, f"{NOBODY}|{NOBODY},{NOBODY}")  # no owner answers
    database = Database.open(f"sqlite:///{tmp_path}/parkway.db")
    database.migrate()
    config = CollectionConfig.model_validate({"index": {"store": "pgvector", "url": vector_database}})
    Collections(database).save({"beside": config}, "config", 0)
    replica = Replica(1, Settings(), Home(tmp_path), database, "token")
    await replica.adopt()
    for partition in range(2):
        name = f"parkway-beside-{partition}"
        index = open_index(config.index, directory=tmp_path, collection=name, dimensions=DIMENSIONS)
        index.upsert([passage(partition)], vectors(1, seed=partition, dimensions=DIMENSIONS))
        index.close()
    for _ in range(2):
        found = await replica.search("beside", Search(query="w0 w1"), frozenset({"key:first"}))
        assert {hit.text for hit in found.hits} == {passage(0).text, passage(1).text}
        assert not found.cached, "nobody tells a replica of what changes in a server"
    assert replica.lags_s() == {}
    await replica.close()
    database.close()
