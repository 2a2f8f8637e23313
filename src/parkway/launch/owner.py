"""The owner of the documents of a partition: puts catalogue, ingestion, index, encoder and search together.

It is the only process that has these indexes open. Everybody else asks it over HTTP (`owner_server.py`).
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import uvloop
from pydantic import ValidationError
from sqlalchemy import select

from parkway.core.errors import (
    CollectionNotFound,
    Conflict,
    DocumentNotFound,
    IndexUnavailable,
    InvalidRequest,
    ParkwayError,
)
from parkway.core.knowledge import CollectionStatus, DocumentPage, DocumentStatus, Found, NewCollection, Search
from parkway.core.tasks import Tasks
from parkway.launch import owners
from parkway.launch.encoders import Encoders
from parkway.launch.engines import TOKEN_VARIABLE
from parkway.launch.library import Owned
from parkway.launch.owner_server import serve
from parkway.launch.partition_index import PartitionIndex, answer
from parkway.launch.settings import Settings
from parkway.retrieval.catalogue import TOPIC, Catalogue, KnownCollection, Partition, document_id
from parkway.retrieval.chunking.encoder import Encoder
from parkway.retrieval.config import UPLOADS, CollectionConfig
from parkway.retrieval.document import EVERYONE
from parkway.retrieval.index.index import Index
from parkway.retrieval.index.opening import open_index
from parkway.retrieval.ingest.embedding import Embedding
from parkway.retrieval.ingest.ingestion import Ingestion
from parkway.retrieval.ingest.source import SourceUnavailable
from parkway.retrieval.ingest.uploads import Header
from parkway.retrieval.query_vectors import QueryVectors
from parkway.retrieval.ranking.ranker import Ranker
from parkway.retrieval.search import Searcher
from parkway.router.knowledge import urls_of
from parkway.store.home import Home
from parkway.store.revisions import Watch
from parkway.store.schema import knowledge_documents
from parkway.store.sql import Database

log = logging.getLogger(__name__)

T = TypeVar("T")

_QUERIES_KEPT = 10_000
_SEARCHES = 8
_CHANGES = 16
_PAGE = 200


def run(settings: Settings, home: Home, listener: socket.socket, partition: int, partitions: int) -> None:
    """Owns a partition until SIGTERM or SIGINT. Prints `ready http://HOST:PORT` once its indexes are open.

    Raises:
        StartupError: The store cannot be reached, or the encoder cannot be loaded.
    """
    uvloop.run(_own(settings, home, listener, Partition(partition, partitions)))


async def _own(settings: Settings, home: Home, listener: socket.socket, share: Partition) -> None:
    database = Database.open(settings.store.url or home.database_url, settings.store)
    token = os.environ.get(TOKEN_VARIABLE, "")
    host, port = listener.getsockname()[:2]
    try:
        urls = urls_of(os.environ.get(owners.VARIABLE, ""))
        owner = Owner(settings, home, database, share, [url for n, url in enumerate(urls) if n != share.number], token)
        try:
            await owner.open()
            async with Tasks("owner") as tasks:
                tasks.start(owner.follow(), name="follow")
                owned = Owned(owner, owner, owner.candidates)
                announce = partial(print, f"ready http://{host}:{port}", flush=True)
                await serve(owned, listener, token, announce, settings.bounds.max_document_bytes)
        finally:
            await owner.close()
    finally:
        database.close()


@dataclass(slots=True)
class _Open:
    """A collection that is open here."""

    config: CollectionConfig
    index: Index
    ingestion: Ingestion
    searcher: Searcher


class Owner:
    """The collections of one partition: a `Library` and a `Searching`, and what only their process can do.

    Args:
        share: Which documents are its own. The first partition looks through the sources for all of them.
        others: Where the owners of the other partitions are.
    """

    def __init__(
        self, settings: Settings, home: Home, database: Database, share: Partition, others: list[str], token: str
    ) -> None:
        self._settings = settings
        self._home = home
        self._database = database
        self._catalogue = Catalogue(database)
        self._share = share
        self._others = others
        self._token = token
        places = {name: model.path for name, model in settings.models.items() if model.path is not None}
        self._encoders = Encoders(places, settings.engine.model_copy(update={"model": ""}))
        self._vectors: dict[str, QueryVectors] = {}
        self._open: dict[str, _Open] = {}
        self._turn = asyncio.Lock()
        self._searches = ThreadPoolExecutor(_SEARCHES, "search")
        self._changes = ThreadPoolExecutor(_CHANGES, "change")

    # Its life

    async def open(self) -> None:
        """Opens all that there is."""
        self._home.knowledge.mkdir(mode=0o700, exist_ok=True)
        if self._share.number == 0:
            await self._change(self._note_configured)
        await self._adopt()

    async def follow(self) -> None:
        """Follows what others change in the catalogue."""
        async for _ in Watch(self._database, [TOPIC]):
            try:
                await self._adopt()
            except Exception:  # whatever one change brings must not hide the next ones
                log.exception("what changed of the collections could not be taken over")

    async def close(self) -> None:
        """Ends all of it; what was taken is on disk then."""
        async with self._turn:
            for each in self._open.values():
                await self._change(partial(_shut, each))
            self._open.clear()
        await self._encoders.close()
        self._searches.shutdown(wait=False, cancel_futures=True)
        self._changes.shutdown(wait=False, cancel_futures=True)

    async def _adopt(self) -> None:
        """Opens what is new, opens anew what was changed, and erases what is on its way out."""
        async with self._turn:
            known = {each.name: each for each in await self._change(self._catalogue.collections)}
            for name in [*self._open]:
                if name not in known or known[name].removing:
                    await self._erase(name)
            for name in await self._change(self._left) - known.keys():
                await self._clear(name)  # the first partition has forgotten it already
            for name, each in known.items():
                if each.removing:
                    await self._clear(name)
                elif name not in self._open or self._open[name].config != each.config:
                    try:
                        await self._begin(each)
                    except (ParkwayError, OSError) as error:  # one that cannot be opened must not keep the others shut
                        log.error("the collection %s cannot be opened: %s", name, error)

    async def _begin(self, known: KnownCollection) -> None:
        name, config = known.name, known.config
        before = self._open.pop(name, None)
        if before is not None:
            await self._change(partial(_shut, before))
        encoder = await self._encoders.of(config.model)
        vectors = self._vectors.setdefault(config.model, QueryVectors(encoder.embed, _QUERIES_KEPT))
        embedding = Embedding(config.model, encoder.dimensions, encoder.embed, Encoder(encoder.count, encoder.reads))

        def begin() -> _Open:
            place = self._home.knowledge / name
            number = self._share.number
            directory, called = place / str(number), f"parkway-{name}-{number}"
            index = open_index(config.index, directory=directory, collection=called, dimensions=embedding.dimensions)
            try:
                ingestion = Ingestion(
                    name, config, catalogue=self._catalogue, index=index, embedding=embedding,
                    uploads=place / "uploads", partition=self._share, scans=number == 0,
                )  # fmt: skip
                ingestion.start()
            except BaseException:
                index.close()
                raise
            indexes: list[Any] = [index, *(PartitionIndex(url, self._token, name) for url in self._others)]
            searcher = Searcher(name, indexes, vectors, Ranker.load(config.index.language))
            return _Open(config, index, ingestion, searcher)

        self._open[name] = await self._change(begin)

    async def _erase(self, name: str) -> None:
        """Removes all that is here of a collection."""
        each = self._open.pop(name)
        await self._change(lambda: (each.searcher.close(), each.ingestion.erase(), each.index.close()))

    def _left(self) -> set[str]:
        """Of which there are files of this partition; the first one's outlive no collection."""
        if self._share.number == 0:
            return set()
        return {each.parent.name for each in self._home.knowledge.glob(f"*/{self._share.number}")}

    async def _clear(self, name: str) -> None:
        """Removes the files of a collection that is not open any more; the first partition then forgets it."""
        place = self._home.knowledge / name

        def clear() -> None:
            shutil.rmtree(place / str(self._share.number), ignore_errors=True)
            if self._share.number == 0:
                shutil.rmtree(place / "uploads", ignore_errors=True)
                self._catalogue.forget(name)
            with suppress(OSError):
                place.rmdir()  # by whoever is last

        await self._change(clear)

    def _note_configured(self) -> None:
        for name, config in self._settings.knowledge.items():
            self._catalogue.save(name, config, "config", _now_ms())

    # Library

    async def collections(self) -> list[CollectionStatus]:
        def all_of_them() -> list[CollectionStatus]:
            found = (self._catalogue.status(each.name) for each in self._catalogue.collections())
            return [each for each in found if each is not None]

        return await self._change(all_of_them)

    async def status(self, collection: str) -> CollectionStatus:
        found = await self._change(lambda: self._catalogue.status(collection))
        if found is None:
            raise _no(collection)
        return found

    async def add(self, collection: str, new: NewCollection) -> CollectionStatus:
        await self._change(lambda: self._save(collection, new))
        await self._adopt()
        if collection not in self._open:
            raise IndexUnavailable(f"the collection {collection} cannot be opened; the log of its owner says why")
        if new.paths:
            try:
                await self._change(self._open[collection].ingestion.rescan)
            except SourceUnavailable as error:
                raise InvalidRequest(str(error), param="paths") from error
        return await self.status(collection)

    def _save(self, collection: str, new: NewCollection) -> None:
        for path in new.paths:
            if not Path(path).exists():
                raise InvalidRequest(f"there is nothing at {path}", param="paths")
        known = {each.name: each for each in self._catalogue.collections()}.get(collection)
        if known is not None and known.removing:
            raise Conflict(f"{collection} is being removed; try again in a moment")
        config = known.config if known is not None else CollectionConfig()
        there = {source.name for source in config.sources}
        said = config.model_dump(exclude_unset=True)
        more = [{"path": path} for path in new.paths if path not in there]
        said["sources"] = [*said.get("sources", []), *more]
        if new.access is not None:
            said["access"] = new.access or [EVERYONE]
        try:
            changed = CollectionConfig.model_validate(said)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            raise InvalidRequest(f"`{place}`: {first['msg']}", param=place) from error
        self._catalogue.save(collection, changed, "api" if known is None else known.origin, _now_ms())

    async def remove(self, collection: str) -> None:
        if collection in self._settings.knowledge:
            raise Conflict(f"{collection} stands in parkway.yaml, under `knowledge`; remove it there first")
        await self.status(collection)
        await self._change(lambda: self._catalogue.begin_removal(collection, _now_ms()))
        await self._adopt()

    async def documents(
        self, collection: str, after: str, limit: int, principals: frozenset[str] | None
    ) -> DocumentPage:
        known = self._opened(collection).config.access

        def page() -> DocumentPage:
            seen = _seen(self._database, collection, after, principals, known)
            data = [each for each, _ in zip(seen, range(limit + 1), strict=False)]
            return DocumentPage(data=data[:limit], has_more=len(data) > limit)

        return await self._change(page)

    async def add_document(
        self, collection: str, uri: str, media_type: str, access: tuple[str, ...], content: AsyncIterator[bytes]
    ) -> DocumentStatus:
        ingestion = self._opened(collection).ingestion
        header = Header(uri, media_type=media_type.partition(";")[0].strip(), access=access or None)
        identifier = await self._change(partial(ingestion.put, header, _pieces(content)))
        found = await self._change(lambda: self._catalogue.document(identifier))
        return found or DocumentStatus(document_id=identifier, uri=uri, state="waiting")

    async def remove_document(self, collection: str, uri: str) -> None:
        ingestion = self._opened(collection).ingestion
        if not await self._change(lambda: ingestion.discard(uri)):
            hint = "; one that comes from a source is removed there"
            raise DocumentNotFound(f"no document {uri[:200]!r} was sent to {collection}{hint}", param="uri")
        await self._change(lambda: self._gone(collection, uri))

    def _gone(self, collection: str, uri: str) -> None:
        """Waits a moment for the indexes to have it out; it goes on without us."""
        identifier = document_id(collection, UPLOADS, uri)
        until = time.monotonic() + 2.0
        while time.monotonic() < until and self._catalogue.document(identifier) is not None:
            time.sleep(0.02)

    # Searching

    async def search(self, collection: str, search: Search, principals: frozenset[str]) -> Found:
        searcher = self._opened(collection).searcher
        found = asyncio.get_running_loop().run_in_executor(self._searches, searcher.search, search, principals)
        return await found

    async def candidates(self, collection: str, body: bytes) -> bytes:
        index = self._opened(collection).index
        try:
            return await asyncio.get_running_loop().run_in_executor(self._searches, answer, index, body)
        except msgspec.MsgspecError as error:
            raise InvalidRequest(f"no question of a partition: {error}") from error

    def _opened(self, collection: str) -> _Open:
        if (found := self._open.get(collection)) is None:
            raise _no(collection)
        return found

    async def _change(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._changes, work)


def _shut(each: _Open) -> None:
    each.searcher.close()
    each.ingestion.close()
    each.index.close()


def _pieces(content: AsyncIterator[bytes]) -> Iterator[bytes]:
    """For another thread, one piece after the other as they come."""
    loop = asyncio.get_running_loop()

    async def following() -> bytes | None:
        return await anext(content, None)

    def each() -> Iterator[bytes]:
        while (piece := asyncio.run_coroutine_threadsafe(following(), loop).result()) is not None:
            yield piece

    return each()


def _seen(
    database: Database, collection: str, after: str, principals: frozenset[str] | None, access: list[str]
) -> Iterator[DocumentStatus]:
    """The documents of a collection that those may see, in the order of their ids.

    Args:
        access: Of what says nothing itself.
    """
    c = knowledge_documents.c
    by_default = principals is None or not {EVERYONE, *principals}.isdisjoint(access)
    while True:
        query = select(knowledge_documents).where(c.collection == collection, c.document_id > after)
        with database.read() as connection:
            rows = connection.execute(query.where(c.state != "removing").order_by(c.document_id).limit(_PAGE)).all()
        for row in rows:
            after = row.document_id
            own = None if row.access is None else msgspec.json.decode(row.access, type=list[str])
            if by_default if own is None or principals is None else not {EVERYONE, *principals}.isdisjoint(own):
                yield DocumentStatus(
                    document_id=row.document_id, uri=row.uri, state=row.state, title=row.title, reason=row.reason,
                    media_type=row.media_type, bytes=row.bytes, passages=row.passages, updated_ms=row.updated_ms,
                )  # fmt: skip
        if len(rows) < _PAGE:
            return


def _no(collection: str) -> CollectionNotFound:
    return CollectionNotFound(f'collection "{collection[:64]}" does not exist', param="knowledge")


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
