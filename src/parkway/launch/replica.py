"""A replica of the owners: a process that answers searches from copies of their indexes, and takes nothing in."""

from __future__ import annotations

import asyncio
import http.client
import logging
import os
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import msgspec
import uvloop

from parkway.core.errors import CollectionNotFound, IndexUnavailable, ParkwayError
from parkway.core.knowledge import Found, Search
from parkway.core.tasks import Tasks
from parkway.launch import owners
from parkway.launch.encoders import Encoders
from parkway.launch.engines import TOKEN_VARIABLE
from parkway.launch.library import Owned
from parkway.launch.owner_server import serve
from parkway.launch.partition_index import PartitionIndex
from parkway.launch.ranker_files import stamp_of
from parkway.launch.rankers import Rankers
from parkway.launch.replica_figures import ReplicaFigures
from parkway.launch.settings import Settings
from parkway.launch.trouble import Telling, of_collection, the_collection
from parkway.retrieval.collections import Collections
from parkway.retrieval.config import CollectionConfig
from parkway.retrieval.index.opening import open_index
from parkway.retrieval.index.replica import Copied, ReplicaIndex
from parkway.retrieval.kept import Tally
from parkway.retrieval.query_vectors import QueryVectors
from parkway.retrieval.search import Searcher
from parkway.retrieval.shown import Shown
from parkway.router.knowledge import places_of
from parkway.store.home import Home
from parkway.store.sql import Database

log = logging.getLogger(__name__)

_LOOK_S = 1.0
_QUERIES_KEPT = 10_000
_SEARCHES = 8
_ANSWER_S, _COPY_S = 5.0, 600.0
"""The longest that an owner takes to say that it has a collection open, and to make a copy of it."""


def run_replica(
    settings: Settings, home: Home, listener: socket.socket, number: int, source: Path | None = None
) -> None:
    """Answers searches until SIGTERM or SIGINT. Prints `ready http://HOST:PORT`; what is not open yet it does not know.

    Args:
        number: Among the replicas, from 1.
        source: The configuration file, to be named where it has to be changed.
    """
    uvloop.run(_answer(settings, home, listener, number, source))


async def _answer(settings: Settings, home: Home, listener: socket.socket, number: int, source: Path | None) -> None:
    database = Database.open(settings.store.url or home.database_url, settings.store)
    token = os.environ.get(TOKEN_VARIABLE, "")
    host, port = listener.getsockname()[:2]
    replica = Replica(number, settings, home, database, token)
    figures = ReplicaFigures(number, replica.results, replica.vectors, replica.lags_s, home)

    def trouble() -> dict[str, str]:
        """What does not pass by itself, as its owner would tell it."""
        return {
            the_collection(name): of_collection(str(error), source if name in settings.knowledge else None)
            for name, error in replica.trouble.items()
            if not isinstance(error, IndexUnavailable)
        }

    try:
        async with Tasks("replica") as tasks:
            tasks.every(_LOOK_S, replica.adopt, name="follow")
            figures.start(tasks)
            Telling(trouble).start(tasks)
            announce = partial(print, f"ready http://{host}:{port}", flush=True)
            await serve(Owned(None, replica), listener, token, announce, settings.bounds.max_document_bytes)
        figures.end()
    finally:
        await replica.close()
        database.close()


@dataclass(slots=True)
class _Open:
    """Attributes:
    indexes: One of each partition.
    copies: Those of them that are copies; none where the store is a server.
    """

    config: CollectionConfig
    indexes: list[Any]
    copies: list[ReplicaIndex]
    searcher: Searcher
    rankers: Rankers


class Replica:
    """A `Searching`. It has open what the owners have, and follows that.

    Attributes:
        trouble: Why a collection cannot be opened; it is tried again.
        results, vectors: How often a search, and the vector of a query, was there already.
    """

    def __init__(self, number: int, settings: Settings, home: Home, database: Database, token: str) -> None:
        self.trouble: dict[str, ParkwayError | OSError] = {}
        self.results = Tally()
        self.vectors = Tally()
        self._owners = [urls[0] for urls in places_of(os.environ.get(owners.VARIABLE, ""))]
        self._number = number
        self._home = home
        self._token = token
        self._collections = Collections(database)
        directories = {name: model.path for name, model in settings.models.items() if model.path is not None}
        self._encoders = Encoders(directories, settings.engine.model_copy(update={"model": ""}))
        self._queries: dict[str, QueryVectors] = {}
        self._open: dict[str, _Open] = {}
        self._searches = ThreadPoolExecutor(_SEARCHES, "search")

    def lags_s(self) -> dict[int, float]:
        """How far the copies of each partition are behind: of all collections, the furthest."""
        found: dict[int, float] = {}
        for opened in list(self._open.values()):
            for partition, copy in enumerate(opened.copies):
                found[partition] = max(found.get(partition, 0.0), copy.lag_s)
        return found

    async def adopt(self) -> None:
        """Opens and closes what the owners do. What cannot be opened is tried again by the next call."""
        known = await asyncio.to_thread(self._collections.all)
        for name in [*self._open]:
            each, opened = known.get(name), self._open[name]
            erased = any(copy.erased for copy in opened.copies)
            if each is None or each.removing or each.config != opened.config or erased:
                await asyncio.to_thread(_shut, self._open.pop(name))
        for name, opened in self._open.items():
            if stamp_of(self._home.knowledge / name) != opened.rankers.stamp:
                await asyncio.to_thread(self._rank, name, opened)
        trouble: dict[str, ParkwayError | OSError] = {}
        for name, each in known.items():
            if not each.removing and name not in self._open:
                try:
                    self._open[name] = await self._begin(name, each.config)
                except (ParkwayError, OSError) as error:
                    trouble[name] = error
                    if str(self.trouble.get(name)) != str(error):
                        log.warning("%s cannot be opened yet: %s", name, error)
        self.trouble = trouble

    async def search(self, collection: str, search: Search, principals: frozenset[str]) -> Found:
        opened = self._open.get(collection)
        if opened is None:
            raise CollectionNotFound(f'collection "{collection[:64]}" is not open here', param="knowledge")
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._searches, opened.searcher.search, search, principals)

    async def close(self) -> None:
        """Ends all of it; the copies are removed."""
        for each in self._open.values():
            await asyncio.to_thread(_shut, each)
        await self._encoders.close()
        self._searches.shutdown(wait=False, cancel_futures=True)

    async def _begin(self, name: str, config: CollectionConfig) -> _Open:
        encoder = await self._encoders.of(config.model)
        if config.model not in self._queries:
            self._queries[config.model] = QueryVectors(encoder.embed, _QUERIES_KEPT, self.vectors)
        indexes = await asyncio.to_thread(self._indexes, name, config, encoder.dimensions)
        rankers = await asyncio.to_thread(self._rankers, name, config)
        copies = [each for each in indexes if isinstance(each, ReplicaIndex)]
        searcher = Searcher(
            name, indexes, self._queries[config.model], rankers.ranker, config.search,
            # What others change in a server is not seen: nothing is kept.
            revisions=[lambda: " ".join(copy.revision() for copy in copies)] if copies else (),
            shown=Shown.of(config), tally=self.results, ranking=config.ranking, cross=rankers.cross,
        )  # fmt: skip
        for copy in copies:
            copy.changed = searcher.forget
        return _Open(config, indexes, copies, searcher, rankers)

    def _rank(self, name: str, opened: _Open) -> None:
        """Takes other rankers, which its owner has taken, too."""
        before, opened.rankers = opened.rankers, self._rankers(name, opened.config)
        opened.searcher.rank_by(opened.rankers.ranker, opened.rankers.cross)
        before.close()

    def _rankers(self, name: str, config: CollectionConfig) -> Rankers:
        return Rankers.of(self._home.knowledge / name, config.index.language, config.ranking)

    def _indexes(self, name: str, config: CollectionConfig, dimensions: int) -> list[Any]:
        """Of each partition what searches need; all of them or none."""
        if config.index.store == "edge":
            for owner in self._owners:  # before any of them makes a copy, which may be large
                if not PartitionIndex(owner, self._token, name, _ANSWER_S).revision():
                    raise IndexUnavailable(f"an owner of {name} has not opened it yet")
        with ExitStack() as opened:
            found = [
                opened.enter_context(closing(self._index(name, partition, config, dimensions)))
                for partition in range(len(self._owners))
            ]
            opened.pop_all()
            return found

    def _index(self, name: str, partition: int, config: CollectionConfig, dimensions: int) -> Any:
        directory = self._home.knowledge / name / str(partition)
        if config.index.store == "edge":
            copy = partial(self._copy, name, self._owners[partition])
            return ReplicaIndex(directory, self._number, config.index, dimensions, copy)
        collection = f"parkway-{name}-{partition}"
        return open_index(config.index, directory=directory, collection=collection, dimensions=dimensions)

    def _copy(self, name: str, owner: str, target: Path) -> Copied:
        """Has the owner of a partition make a copy. Raises: IndexUnavailable."""
        connection = http.client.HTTPConnection(urlsplit(owner).netloc, timeout=_COPY_S)
        path = f"/collections/{quote(name, safe='')}/replicas/{self._number}/{target.name}"
        try:
            connection.request("POST", path, headers={"authorization": f"Bearer {self._token}"})
            response = connection.getresponse()
            told = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise IndexUnavailable(f"an owner of {name} does not answer") from error
        finally:
            connection.close()
        if response.status != 200:
            raise IndexUnavailable(f"an owner of {name} makes no copy now (status {response.status})")
        return msgspec.json.decode(told, type=Copied)


def _shut(each: _Open) -> None:
    each.searcher.close()
    each.rankers.close()
    for index in each.indexes:
        index.close()
