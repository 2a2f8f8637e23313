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

from parkway.core.errors import IndexUnavailable
from parkway.core.knowledge import NewCollection, NewDocument
from parkway.core.tasks import Tasks
from parkway.launch import open_collections
from parkway.launch.open_collections import OpenCollections
from parkway.launch.owner import Owner
from parkway.launch.settings import Settings
from parkway.retrieval.catalogue import Partition
from parkway.retrieval.collections import Collections
from parkway.retrieval.config import CollectionConfig
from parkway.retrieval.index import edge
from parkway.retrieval.index.config import IndexConfig
from parkway.retrieval.index.edge import EdgeIndex
from parkway.retrieval.ingest.uploads import Header
from parkway.store.home import Home
from parkway.store.sql import Database
from tests.retrieval.ingest.stage import DIMENSIONS, Encoding


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[Owner]:
    home = Home.open(tmp_path)
    database = Database.open(home.database_url)
    database.migrate()
    yield Owner(Settings(), home, database, Partition(), [], "token")
    database.close()


class Server:
    """An index that does not lie in the collection's directory, and may be away."""

    def __init__(self, place: Path) -> None:
        self.away = False
        self._index = EdgeIndex(place / "server", IndexConfig(build_threads=1, build_niceness=0), DIMENSIONS)

    def connect(self) -> Any:
        if self.away:
            raise IndexUnavailable("the server does not answer")
        return SimpleNamespace(
            close=lambda: None, upsert=self._index.upsert, remove=self._index.remove, search=self._index.search,
            vectors=self._index.vectors, passages=self._index.passages, documents=self._index.documents,
            optimise=lambda: False, size=self._index.size,
        )  # fmt: skip


async def test_a_collection_goes_also_when_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Home.open(tmp_path)
    database = Database.open(home.database_url)
    database.migrate()
    collections, encoding = Collections(database), Encoding().embedding
    encoder = SimpleNamespace(
        dimensions=encoding.dimensions, embed=encoding.embed, count=encoding.encoder.count, reads=256
    )

    async def of(_: str) -> object:
        return encoder

    encoders: Any = SimpleNamespace(of=of)
    opened = OpenCollections(home, database, encoders, Partition(), [], "token")
    collections.save({"docs": CollectionConfig()}, "api", 1)
    await opened.adopt()
    ingestion = opened.get("docs").ingestion  # pyright: ignore[reportOptionalMemberAccess]
    ingestion.put(Header("a"), [b"a text"])
    assert ingestion.settle(30)
    with monkeypatch.context() as full:
        full.setattr(edge, "FREE_BYTES", 1 << 60)
        collections.begin_removal("docs", 2)
        await opened.adopt()
    assert not (home.knowledge / "docs").exists()
    assert collections.all() == {}
    # Of a server everything goes as soon as it answers again, also if that is after a restart.
    server = Server(tmp_path)
    monkeypatch.setattr(open_collections, "open_index", lambda *_, **__: server.connect())
    monkeypatch.setenv("QDRANT", "http://127.0.0.1:1")
    remote = CollectionConfig.model_validate({"index": {"store": "qdrant", "url_env": "QDRANT"}})
    collections.save({"docs": remote}, "api", 3)
    await opened.adopt()
    ingestion = opened.get("docs").ingestion  # pyright: ignore[reportOptionalMemberAccess]
    ingestion.put(Header("a"), [b"a text"])
    assert ingestion.settle(30)
    server.away = True
    collections.begin_removal("docs", 4)
    await opened.adopt()
    assert (opened.get("docs"), list(opened.trouble)) == (None, ["docs"])
    await opened.close()
    opened = OpenCollections(home, database, encoders, Partition(), [], "token")
    await opened.adopt()
    assert collections.all()["docs"].removing
    server.away = False
    await opened.adopt()
    assert (server.connect().documents(), collections.all(), opened.trouble) == ({}, {}, {})
    await opened.close()
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


async def test_what_a_document_is_encoded_in_is_handed_on(owner: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[Header] = []
    ingestion = SimpleNamespace(put=lambda header, _: taken.append(header) or "id")
    monkeypatch.setattr(owner, "_opened", lambda _: SimpleNamespace(ingestion=ingestion))

    async def nothing() -> AsyncIterator[bytes]:
        yield b""

    await owner.add_document("docs", NewDocument(uri="a", media_type="text/plain; charset=koi8-r"), nothing())
    assert taken[0].media_type == "text/plain; charset=koi8-r"


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
