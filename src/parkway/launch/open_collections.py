"""The collections that are open in an owner, each with its index, its ingestion and its search."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from parkway.core.errors import ConfigurationError, ParkwayError
from parkway.launch.encoders import Encoders
from parkway.launch.partition_index import PartitionIndex
from parkway.launch.ranker_files import forget, stamp_of
from parkway.launch.rankers import Rankers
from parkway.retrieval.catalogue import Catalogue, Partition
from parkway.retrieval.chunking.encoder import Encoder
from parkway.retrieval.collections import Collections, KnownCollection
from parkway.retrieval.config import CollectionConfig
from parkway.retrieval.index.index import Index
from parkway.retrieval.index.opening import open_index
from parkway.retrieval.index.revised import RevisedIndex
from parkway.retrieval.ingest.embedding import Embedding
from parkway.retrieval.ingest.indexing import Failures
from parkway.retrieval.ingest.ingestion import Ingestion, check
from parkway.retrieval.kept import Tally
from parkway.retrieval.query_vectors import QueryVectors
from parkway.retrieval.search import Searcher
from parkway.retrieval.shown import Shown
from parkway.store.home import Home
from parkway.store.sql import Database

log = logging.getLogger(__name__)

T = TypeVar("T")

_QUERIES_KEPT = 10_000
_CHANGES = 16


@dataclass(slots=True)
class OpenCollection:
    """One of them. What is in the index can be searched also while its ingestion is replaced by another.

    Attributes:
        begun: Whether its ingestion could be begun.
    """

    config: CollectionConfig
    created_ms: int
    index: RevisedIndex
    ingestion: Ingestion
    searcher: Searcher
    rankers: Rankers
    begun: bool = True


class OpenCollections:
    """Follows what the store says of collections. Of one partition; used from the event loop.

    Args:
        share: Which documents are its own. The first partition looks through the sources for all of them.
        others: Where the owners of the other partitions are.

    Attributes:
        trouble: Why a collection is not as the store says that it shall be; it is tried again.
        results, vectors: How often a search, and the vector of a query, was there already.
        failures: Of taking documents in.
    """

    def __init__(
        self, home: Home, database: Database, encoders: Encoders, share: Partition, others: list[str], token: str
    ) -> None:
        self.trouble: dict[str, str] = {}
        self.results = Tally()
        self.vectors = Tally()
        self.failures = Failures()
        self._home = home
        self._collections = Collections(database)
        self._catalogue = Catalogue(database)
        self._encoders = encoders
        self._share = share
        self._others = others
        self._token = token
        self._queries: dict[str, QueryVectors] = {}
        self._open: dict[str, OpenCollection] = {}
        self._leaving: dict[str, CollectionConfig | None] = {}
        self._turn = asyncio.Lock()
        self._changes = ThreadPoolExecutor(_CHANGES, "change")

    def get(self, name: str) -> OpenCollection | None:
        return self._open.get(name)

    def all(self) -> list[tuple[str, OpenCollection]]:
        """By name."""
        return [*self._open.items()]

    async def change(self, work: Callable[[], T]) -> T:
        """Does what blocks in one of the threads that change things."""
        return await asyncio.get_running_loop().run_in_executor(self._changes, work)

    async def check(self, configs: Mapping[str, CollectionConfig]) -> None:
        """Sees that collections can be as they are configured.

        Raises:
            ConfigurationError: One cannot; the message goes on from the key `knowledge`.
        """
        for name, config in configs.items():
            try:
                embedding = await self._embedding(config)
                await self.change(partial(check, config, embedding))
            except ParkwayError as error:
                raise ConfigurationError(f"knowledge.{name}: {error.message}") from error

    async def adopt(self) -> None:
        """Opens what is new, has what was changed go on as it is configured now, and erases what is on its way out."""
        async with self._turn:
            known = await self.change(self._collections.all)
            await self._erase_all(known)
            for name in self.trouble.keys() - known.keys() - self._leaving.keys():
                del self.trouble[name]
            for name, each in known.items():
                if not each.removing:
                    await self._try(name, "be as it is configured", partial(self._take, each))

    async def _try(self, name: str, what: str, work: Callable[[], Awaitable[None]]) -> bool:
        """Does something with a collection; one that cannot must not keep the others from it. Whether it was done."""
        try:
            await work()
        except (ParkwayError, OSError) as error:
            if self.trouble.get(name) != str(error):
                log.error("the collection %s cannot %s: %s", name, what, error)
            self.trouble[name] = str(error)
            return False
        self.trouble.pop(name, None)
        return True

    async def close(self) -> None:
        """Closes all of them; what was taken in is on disk then."""
        async with self._turn:
            for each in self._open.values():
                await self.change(partial(_shut, each))
            self._open.clear()
        self._changes.shutdown(wait=False, cancel_futures=True)

    async def _take(self, known: KnownCollection) -> None:
        """Has a collection be as it is configured. One that cannot stays as it is, where it is open."""
        name, config = known.name, known.config
        opened = self._open.get(name)
        if opened is not None and opened.begun and opened.config == config:
            await self.change(lambda: self._take_rankers(opened, name))
            return
        embedding = await self._embedding(config)
        if opened is not None and config == config.beside(opened.config):
            await self.change(lambda: self._go_on(opened, name, config, embedding))
            return
        if opened is not None:
            await self.change(partial(_shut, self._open.pop(name)))
        self._open[name] = await self.change(lambda: self._begin(known, embedding))

    def _begin(self, known: KnownCollection, embedding: Embedding) -> OpenCollection:
        name, config = known.name, known.config
        index = RevisedIndex(self._index(name, config, embedding))
        try:
            ingestion = self._ingestion(name, config, index, embedding)
            ingestion.start()
        except BaseException:
            index.close()
            raise
        indexes: list[Any] = [index, *(PartitionIndex(url, self._token, name) for url in self._others)]
        rankers = self._rankers(name, config)
        searcher = Searcher(
            name, indexes, self._queries[config.model], rankers.ranker, config.search,
            revisions=[each.revision for each in indexes], shown=Shown.of(config), tally=self.results,
            ranking=config.ranking, cross=rankers.cross,
        )  # fmt: skip
        index.changed = searcher.forget
        return OpenCollection(config, known.created_ms, index, ingestion, searcher, rankers)

    def _index(self, name: str, config: CollectionConfig, embedding: Embedding) -> Index:
        number = self._share.number
        return open_index(
            config.index,
            directory=self._home.knowledge / name / str(number),
            collection=f"parkway-{name}-{number}",
            dimensions=embedding.dimensions,
        )

    def _go_on(self, opened: OpenCollection, name: str, config: CollectionConfig, embedding: Embedding) -> None:
        """With the same index, which can be searched meanwhile."""
        searched = {"search": opened.config.search, "ranking": opened.config.ranking}
        if not opened.begun or config.model_copy(update=searched) != opened.config:
            ingestion = self._ingestion(name, config, opened.index, embedding)
            opened.begun = False
            opened.ingestion.close()
            opened.ingestion = ingestion
            ingestion.start(again=True)
            opened.begun = True
        opened.searcher.configure(config.search, config.ranking, Shown.of(config))
        opened.config = config
        self._take_rankers(opened, name)

    def _take_rankers(self, opened: OpenCollection, name: str) -> None:
        """Those that were trained meanwhile, or are configured otherwise."""
        before, config = opened.rankers, opened.config
        if (stamp_of(self._home.knowledge / name), config.ranking) != (before.stamp, before.config):
            opened.rankers = self._rankers(name, config)
            opened.searcher.rank_by(opened.rankers.ranker, opened.rankers.cross)
            before.close()

    def _rankers(self, name: str, config: CollectionConfig) -> Rankers:
        """The first partition ranks what all of them have found."""
        first = self._share.number == 0
        return Rankers.of(self._home.knowledge / name, config.index.language, config.ranking, reads=first)

    def _ingestion(self, name: str, config: CollectionConfig, index: RevisedIndex, embedding: Embedding) -> Ingestion:
        """Not begun yet. Raises where the collection cannot be so."""
        return Ingestion(
            name, config, catalogue=self._catalogue, index=index, embedding=embedding,
            uploads=self._home.knowledge / name / "uploads", partition=self._share, scans=self._share.number == 0,
            failures=self.failures, home=self._home.path,
        )  # fmt: skip

    async def _embedding(self, config: CollectionConfig) -> Embedding:
        encoder = await self._encoders.of(config.model)
        if config.model not in self._queries:
            self._queries[config.model] = QueryVectors(encoder.embed, _QUERIES_KEPT, self.vectors)
        return Embedding(config.model, encoder.dimensions, encoder.embed, Encoder(encoder.count, encoder.reads))

    async def _erase_all(self, known: Mapping[str, KnownCollection]) -> None:
        """Removes what is on its way out, what others have forgotten already, and what was made anew meanwhile."""
        opened = {name: each.created_ms for name, each in self._open.items()}
        staying = {
            name
            for name, each in known.items()
            if not each.removing and opened.get(name, each.created_ms) == each.created_ms
        }
        leaving: dict[str, CollectionConfig | None] = dict.fromkeys(await self.change(self._left) - known.keys())
        leaving |= {name: each.config for name, each in known.items() if each.removing}
        for name in self._open.keys() - staying:
            each = self._open.pop(name)
            leaving[name] = each.config
            await self._try(name, "be closed", lambda each=each: self.change(partial(_shut, each)))
        self._leaving = {name: config for name, config in (self._leaving | leaving).items() if name not in staying}
        for name, config in [*self._leaving.items()]:
            whole = name not in known or known[name].removing
            if await self._try(name, "be erased", partial(self._erase, name, config, whole=whole)):
                del self._leaving[name]

    def _left(self) -> set[str]:
        """Of which there are files of this partition; the first one's outlive no collection."""
        if self._share.number == 0:
            return set()
        return {each.parent.name for each in self._home.knowledge.glob(f"*/{self._share.number}")}

    async def _erase(self, name: str, config: CollectionConfig | None, *, whole: bool) -> None:
        """Removes all that is here of a collection that is not open any more.

        Args:
            whole: The first partition then forgets it, too; else there is a new one of this name.
        """
        place = self._home.knowledge / name
        embedding = await self._embedding(config) if config is not None and config.index.store != "edge" else None

        def erase() -> None:
            if config is not None and embedding is not None:
                self._empty(name, config, embedding)
            for _ in range(2):  # a replica may just have written how far it is
                shutil.rmtree(place / str(self._share.number), ignore_errors=True)
            if whole and self._share.number == 0:
                shutil.rmtree(place / "uploads", ignore_errors=True)
                forget(place)
                self._collections.forget(name)
            with suppress(OSError):
                place.rmdir()  # by whoever is last

        await self.change(erase)

    def _empty(self, name: str, config: CollectionConfig, embedding: Embedding) -> None:
        """Removes the passages of an index that does not lie in a directory of its own."""
        index = self._index(name, config, embedding)
        try:
            for document in index.documents():
                index.remove(document)
            index.optimise()
        finally:
            index.close()


def _shut(each: OpenCollection) -> None:
    each.searcher.close()
    each.rankers.close()
    each.ingestion.close()
    each.index.close()
