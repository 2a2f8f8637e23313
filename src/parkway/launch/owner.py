"""The owner of the documents of a partition: puts catalogue, ingestion, index, encoder and search together.

It is the only process that has these indexes open. Everybody else asks it over HTTP (`owner_server.py`).
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

import msgspec
import uvloop
from pydantic import ValidationError

from parkway.core.errors import (
    CollectionNotFound,
    Conflict,
    DocumentNotFound,
    IndexUnavailable,
    InvalidRequest,
    StoreUnavailable,
)
from parkway.core.knowledge import (
    CollectionStatus,
    DocumentPage,
    DocumentStatus,
    Found,
    NewCollection,
    NewDocument,
    ReplicaLag,
    Search,
    checked_name,
)
from parkway.core.tasks import Tasks
from parkway.launch import owners
from parkway.launch.encoders import Encoders
from parkway.launch.engines import TOKEN_VARIABLE
from parkway.launch.library import Owned
from parkway.launch.open_collections import OpenCollection, OpenCollections
from parkway.launch.owner_figures import OwnerFigures
from parkway.launch.owner_server import serve
from parkway.launch.partition_index import answer
from parkway.launch.reload import INTERVAL_S, Commit, Outcome, Reload, Source, Watcher
from parkway.launch.settings import Settings
from parkway.launch.trouble import CONFIGURATION, Telling, of_collection, refusal, the_collection
from parkway.retrieval.catalogue import Partition, document_id
from parkway.retrieval.collections import TOPIC, Collections
from parkway.retrieval.config import UPLOADS, CollectionConfig
from parkway.retrieval.index.edge import EdgeIndex
from parkway.retrieval.index.replica import Copied, lags_s, replica_place
from parkway.retrieval.ingest.source import SourceUnavailable
from parkway.retrieval.ingest.uploads import Header
from parkway.retrieval.listing import Listing
from parkway.router.knowledge import places_of
from parkway.store.home import Home
from parkway.store.revisions import Watch
from parkway.store.sql import Database

log = logging.getLogger(__name__)

T = TypeVar("T")

_COPY = re.compile("generation-[0-9a-f]{12}")
_SEARCHES = 8
_UPLOADS = 16
_RETRY_S = 30.0
_PAUSE_S = 1.0


def run(
    settings: Settings,
    home: Home,
    listener: socket.socket,
    partition: int,
    partitions: int,
    source: Path | None = None,
) -> None:
    """Owns a partition until SIGTERM or SIGINT. Prints `ready http://HOST:PORT` once its indexes are open.

    Args:
        source: The configuration file whose changes are followed.

    Raises:
        StartupError: The store cannot be reached, or the encoder cannot be loaded.
    """
    uvloop.run(_own(settings, home, listener, Partition(partition, partitions), source))


async def _own(settings: Settings, home: Home, listener: socket.socket, share: Partition, source: Path | None) -> None:
    database = Database.open(settings.store.url or home.database_url, settings.store)
    token = os.environ.get(TOKEN_VARIABLE, "")
    host, port = listener.getsockname()[:2]
    try:
        places = places_of(os.environ.get(owners.VARIABLE, ""))
        others = [urls[0] for number, urls in enumerate(places) if number != share.number]
        owner = Owner(settings, home, database, share, others, token)
        try:
            await owner.open()
            figures = OwnerFigures(owner.opened, Listing(database), share, home, lambda: not owner.refused)
            async with Tasks("owner") as tasks:
                owner.follow(tasks, source)
                figures.start(tasks)
                owned = Owned(owner, owner, owner.candidates, owner.revision, owner.copy)
                announce = partial(print, f"ready http://{host}:{port}", flush=True)
                await serve(owned, listener, token, announce, settings.bounds.max_document_bytes)
            figures.end()
        finally:
            await owner.close()
    finally:
        database.close()


class Owner:
    """The collections of one partition: a `Library` and a `Searching`, and what only their process can do.

    Args:
        share: Which documents are its own.
        others: Where the owners of the other partitions are.

    Attributes:
        refused: Why the configuration cannot be used as it is written now; empty where it can.
    """

    def __init__(
        self, settings: Settings, home: Home, database: Database, share: Partition, others: list[str], token: str
    ) -> None:
        self.refused = ""
        self._source: Path | None = None
        self._configured: Mapping[str, CollectionConfig] = settings.knowledge
        self._settings = settings
        self._home = home
        self._database = database
        self._collections = Collections(database)
        self._listing = Listing(database)
        self._share = share
        places = {name: model.path for name, model in settings.models.items() if model.path is not None}
        self._encoders = Encoders(places, settings.engine.model_copy(update={"model": ""}))
        self.opened = OpenCollections(home, database, self._encoders, share, others, token)
        self._searches = ThreadPoolExecutor(_SEARCHES, "search")
        self._uploads = ThreadPoolExecutor(_UPLOADS, "upload")  # each takes as long as its client does
        self._saving = threading.Lock()
        self._tasks = Tasks("owner")

    # Its life

    async def open(self) -> None:
        """Opens all that there is."""
        self._home.knowledge.mkdir(mode=0o700, exist_ok=True)
        if self._share.number == 0:
            await self._change(lambda: self._collections.save(self._configured, "config", _now_ms()))
        await self.opened.adopt()

    def follow(self, tasks: Tasks, source: Path | None = None) -> None:
        """From now on follows what others change in the store, and the first partition what stands in `source`."""
        self._tasks, self._source = tasks, source
        tasks.start(self._follow_store(), name="follow")
        tasks.every(_RETRY_S, self._try_again, name="try again")
        Telling(self._trouble).start(tasks)
        if source is not None and self._share.number == 0:
            reload = Reload(self._settings)
            reload.register(partial(self._prepare, asyncio.get_running_loop()), "knowledge")
            tasks.every(INTERVAL_S, Watcher(reload, Source(source), self._tell).look, name="configuration")

    async def close(self) -> None:
        """Ends all of it; what was taken is on disk then."""
        await self.opened.close()
        await self._encoders.close()
        self._searches.shutdown(wait=False, cancel_futures=True)
        self._uploads.shutdown(wait=False, cancel_futures=True)

    async def _follow_store(self) -> None:
        async for _ in Watch(self._database, [TOPIC]):
            try:
                await self.opened.adopt()
            except Exception:  # whatever one change brings must not hide the next ones
                log.exception("what changed of the collections could not be taken over")

    async def _try_again(self) -> None:
        if self.opened.trouble:
            await self.opened.adopt()

    def _prepare(self, loop: asyncio.AbstractEventLoop, new: Settings) -> Commit:
        """Collections that were configured otherwise, all of them or none. Those that are no more stay as they are."""
        changed = {
            name: config if (opened := self.opened.get(name)) is None else config.beside(opened.config)
            for name, config in new.knowledge.items()
            if config != self._configured.get(name)
        }
        asyncio.run_coroutine_threadsafe(self.opened.check(changed), loop).result()

        def commit() -> None:
            self._configured = new.knowledge
            self._tasks.start(self._put_in_force(changed), name="configuration")

        return commit

    async def _put_in_force(self, changed: Mapping[str, CollectionConfig]) -> None:
        while True:
            try:
                await self._change(lambda: self._collections.save(changed, "config", _now_ms()))
                return await self.opened.adopt()
            except StoreUnavailable as error:
                log.warning("the collections cannot be changed yet: %s", error.message)
                await asyncio.sleep(_PAUSE_S)

    def _tell(self, outcome: Outcome) -> None:
        self.refused = outcome.error or ""
        if outcome.error is not None:
            log.error("the configuration cannot be used, so what was in force stays in force:\n%s", outcome.error)

    def _trouble(self) -> dict[str, str]:
        """What is wrong just now, for whoever sits at the terminal."""
        found = {CONFIGURATION: refusal(self.refused, self._source)} if self.refused else {}
        for name, error in self.opened.trouble.items():
            found[the_collection(name)] = of_collection(error, self._source if name in self._configured else None)
        for name, opened in self.opened.all():
            for source, error in opened.ingestion.trouble.copy().items():
                found[f"the source {source} of {the_collection(name)}"] = f"cannot be looked through: {error}"
        return found

    # Library

    async def collections(self, principals: frozenset[str] | None = None) -> list[CollectionStatus]:
        found = await self._change(lambda: self._listing.statuses(principals=principals))
        return [self._with_trouble(each) for each in found]

    async def status(self, collection: str, principals: frozenset[str] | None = None) -> CollectionStatus:
        found = await self._change(lambda: self._listing.statuses(collection, principals))
        if not found:
            raise _no(collection)
        lags = await self._change(lambda: self._replica_lags(collection))
        return msgspec.structs.replace(self._with_trouble(found[0]), replica_lags=lags)

    def _replica_lags(self, collection: str) -> list[ReplicaLag]:
        """Of all partitions: they are on this machine."""
        found = [
            ReplicaLag(replica=number, partition=partition, lag_s=round(lag_s, 1))
            for partition in range(self._share.of)
            for number, lag_s in lags_s(self._home.knowledge / collection / str(partition)).items()
        ]
        return sorted(found, key=lambda lag: (lag.replica, lag.partition))

    def _with_trouble(self, status: CollectionStatus) -> CollectionStatus:
        trouble = [self.opened.trouble[status.name]] if status.name in self.opened.trouble else []
        if self.refused and status.name in self._configured:
            trouble.append(f"what stands in parkway.yaml now cannot be used: {self.refused}")
        if (opened := self.opened.get(status.name)) is not None:
            trouble += [f"{source}: {reason}" for source, reason in sorted(opened.ingestion.trouble.items())]
        return msgspec.structs.replace(status, trouble=trouble) if trouble else status

    async def add(self, collection: str, new: NewCollection) -> CollectionStatus:
        await self._change(lambda: self._save(collection, new))
        while True:
            await self.opened.adopt()
            if (opened := self.opened.get(collection)) is None:
                raise IndexUnavailable(f"the collection {collection} cannot be opened; the log of its owner says why")
            if not new.paths:
                break
            ingestion = opened.ingestion
            try:
                await self._change(partial(ingestion.rescan, new.paths))
                break
            except SourceUnavailable as error:
                if not ingestion.closed:
                    raise InvalidRequest(str(error), param="paths") from error
                # Something else was added meanwhile: the next one looks through all of it.
        return await self.status(collection)

    def _save(self, collection: str, new: NewCollection) -> None:
        try:
            checked_name(collection)
        except ValueError as error:
            raise InvalidRequest(str(error), param="name") from None
        for path in new.paths:
            if not Path(path).exists():
                raise InvalidRequest(f"there is nothing at {path}", param="paths")
            if Path(path).resolve() == self._home.path.resolve():
                raise InvalidRequest(
                    f"{path} is Parkway's own home, which holds keys; name a folder in it", param="paths"
                )
        with self._saving:  # from what was read to what is written nobody else may add to it
            known = self._collections.all().get(collection)
            if known is not None and known.removing:
                raise Conflict(f"{collection} is being removed; try again in a moment")
            config = known.config if known is not None else CollectionConfig()
            changed = _added(config, new)
            if collection in self._configured and changed != config:
                raise Conflict(f"{collection} stands in parkway.yaml, under `knowledge`; change it there")
            origin = "api" if known is None else known.origin
            self._collections.save({collection: changed}, origin, _now_ms())

    async def remove(self, collection: str) -> None:
        if collection in self._configured:
            raise Conflict(f"{collection} stands in parkway.yaml, under `knowledge`; remove it there first")
        await self.status(collection)
        await self._change(lambda: self._begin_removal(collection))
        await self.opened.adopt()

    def _begin_removal(self, collection: str) -> None:
        with self._saving:
            self._collections.begin_removal(collection, _now_ms())

    async def documents(
        self, collection: str, after: str, limit: int, principals: frozenset[str] | None
    ) -> DocumentPage:
        config = self._opened(collection).config
        return await self._change(lambda: self._listing.documents(collection, config, after, limit, principals))

    async def add_document(self, collection: str, new: NewDocument, content: AsyncIterator[bytes]) -> DocumentStatus:
        ingestion = self._opened(collection).ingestion
        header = Header(
            new.uri,
            media_type=new.media_type.strip(),
            access=tuple(new.access) or None,
            metadata=new.metadata,
        )
        put = partial(ingestion.put, header, _pieces(content))
        identifier = await asyncio.get_running_loop().run_in_executor(self._uploads, put)
        found = await self._change(lambda: self._listing.document(identifier))
        return found or DocumentStatus(document_id=identifier, uri=new.uri, state="waiting")

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
        while time.monotonic() < until and self._listing.document(identifier) is not None:
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

    async def copy(self, collection: str, number: int, name: str) -> Copied:
        """A copy of what is here of a collection, for a replica.

        Args:
            name: Of the directory that is made.

        Raises:
            CollectionNotFound: There is none.
            InvalidRequest: Its store has no copies, or the name is none.
        """
        index = self._opened(collection).index.inner
        if not isinstance(index, EdgeIndex) or not _COPY.fullmatch(name):
            raise InvalidRequest(f"no copy of {collection} under the name {name!r}")
        return await self._change(lambda: index.copy(replica_place(index.directory, number) / name))

    def revision(self, collection: str) -> str:
        return self._opened(collection).index.revision()

    def _opened(self, collection: str) -> OpenCollection:
        if (found := self.opened.get(collection)) is None:
            raise _no(collection)
        return found

    async def _change(self, work: Callable[[], T]) -> T:
        return await self.opened.change(work)


def _added(config: CollectionConfig, new: NewCollection) -> CollectionConfig:
    """`config` with what is new. Raises: InvalidRequest."""
    said = config.model_dump(exclude_unset=True)
    sources = {source.get("path", number): source for number, source in enumerate(said.get("sources", []))}
    for path in new.paths:
        sources[path] = {**sources.get(path, {"path": path}), **({"metadata": new.metadata} if new.metadata else {})}
    said["sources"] = list(sources.values())
    if new.access is not None:
        said["access"] = new.access
    try:
        return CollectionConfig.model_validate(said)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise InvalidRequest(f"`{place}`: {first['msg']}", param=place) from error


def _pieces(content: AsyncIterator[bytes]) -> Iterator[bytes]:
    """For another thread, one piece after the other as they come."""
    loop = asyncio.get_running_loop()

    async def following() -> bytes | None:
        return await anext(content, None)

    def each() -> Iterator[bytes]:
        while (piece := asyncio.run_coroutine_threadsafe(following(), loop).result()) is not None:
            yield piece

    return each()


def _no(collection: str) -> CollectionNotFound:
    return CollectionNotFound(f'collection "{collection[:64]}" does not exist', param="knowledge")


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
