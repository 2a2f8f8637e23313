"""Ingestion: what the sources of a collection have comes into its index, and what they have no more goes out of it.

sources ─ scan, watch ─> catalogue ─ claim ─> readers ─ bounded ─> indexing ─> index, then catalogue
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path

from parkway.core.errors import ParkwayError, StoreUnavailable
from parkway.core.tasks import start_thread
from parkway.retrieval.catalogue import Catalogue, Document, Partition, document_id
from parkway.retrieval.chunking.chunker import chunker
from parkway.retrieval.config import UPLOADS, CollectionConfig
from parkway.retrieval.index.index import Index, Size
from parkway.retrieval.ingest.embedding import Embedding
from parkway.retrieval.ingest.folder import Folder
from parkway.retrieval.ingest.indexing import FEWEST, Failures, Indexing
from parkway.retrieval.ingest.opening import open_source
from parkway.retrieval.ingest.queue import Waiting
from parkway.retrieval.ingest.reading import Read, Reading
from parkway.retrieval.ingest.reconcile import reconcile
from parkway.retrieval.ingest.scan import Checkpoint, Scan
from parkway.retrieval.ingest.source import Source, SourceUnavailable, Unknown
from parkway.retrieval.ingest.uploads import Header, Uploads
from parkway.retrieval.ingest.watch import Watch
from parkway.retrieval.parsing.sandbox import Sandbox

log = logging.getLogger(__name__)

_LEASE_MS = 6 * 3_600_000  # the owner of a partition is the only one who works on it, and ends old leases at its start
_CLAIM = 32
_ROOM = 600_000  # characters between reading and embedding: about a batch
_POLL_S = 0.25  # other processes may have documents wait, too
_GATHER_S = 0.3
_BACK_OFF_S = (0.5, 30.0)
_OPTIMISE_S, _LOOK_S = 60.0, 5.0
_BEHIND = range(20_000, 50_000)  # passages without a graph: so many, or a twentieth of all between these two
_TOO_FAR_BEHIND = 80_000  # about 0.3 GB of memory; all of them are compared with each query
_PACE_S = 0.25
_REST = 9  # times as long as it took


def check(config: CollectionConfig, embedding: Embedding) -> None:
    """Sees that documents could be taken in so.

    Raises:
        ChunkTooLong, ConfigurationError: The chunks do not fit the encoder; a source cannot be opened.
    """
    for source in config.sources:
        open_source(source)
    chunker(config.chunking, embedding.encoder, embedding.embed)


class Ingestion:
    """Of one collection, or of a partition of it. Its owner has the index and is the only one who writes to it."""

    def __init__(
        self,
        collection: str,
        config: CollectionConfig,
        *,
        catalogue: Catalogue,
        index: Index,
        embedding: Embedding,
        uploads: Path,
        partition: Partition | None = None,
        scans: bool = True,
        readers: int = 1,
        clock: Callable[[], float] = time.time,
        optimise_s: float = _OPTIMISE_S,
        checkpoint: Checkpoint = lambda _: None,
        failures: Failures | None = None,
        home: Path | None = None,
    ) -> None:
        """Does nothing yet.

        Args:
            uploads: The directory of what clients send to this collection.
            scans: Whether this one looks through the sources; one partition does it for all.
            readers: Documents that are read at the same time, each by a process of its own.
            clock: Seconds since 1970.
            failures: Where they are counted; may be shared with others.
            home: Parkway's own, which is passed over.
            optimise_s: How long after a change the index is optimised at the latest, if there is a quiet moment.

        Raises:
            ChunkTooLong, ConfigurationError: The chunks do not fit the encoder; a source cannot be opened.
        """
        self.collection = collection
        self.config = config
        self.trouble: dict[str, str] = {}
        """By source: why it, or a part of it, could not be looked through just now."""
        self._catalogue = catalogue
        self._index = index
        self._partition = partition or Partition()
        self._clock = clock
        self._checkpoint = checkpoint
        self._optimise_s = optimise_s
        self._uploads = Uploads(uploads, collection)
        self._sources: dict[str, Source] = {source.name: open_source(source, home) for source in config.sources}
        self._sources[UPLOADS] = self._uploads
        self._scans = scans
        self._stop = threading.Event()
        self._scan = Scan(collection, catalogue, self._now_ms, checkpoint, self._stop.is_set)
        cut = chunker(config.chunking, embedding.encoder, embedding.embed)
        self._reading = Reading(config, embedding.name, cut, self._sources.get, checkpoint)
        self.indexing = Indexing(catalogue, index, embedding, self._reading.recipe, self._now_ms, checkpoint, failures)
        self._queue: Waiting[tuple[Document, Read | Exception]] = Waiting(_ROOM)
        self._claimed: deque[Document] = deque()
        self._claiming = threading.Lock()
        self._uploading = threading.Lock()
        self._counting = threading.Lock()
        self._in_hand = 0  # documents that are claimed and not finished
        self._wake = threading.Event()
        self._readers = [Sandbox(config.parsing) for _ in range(readers)]
        self._threads: list[threading.Thread] = []
        self._drained = False  # nothing waits that is not claimed
        self._changed = False
        self._optimising = self._slowed = False

    def start(self, *, again: bool = False) -> None:
        """Puts right what the last run left, then begins.

        Args:
            again: Another one has ended in this process, which has left nothing but work that waits.

        Raises:
            StoreUnavailable, IndexUnavailable: Nothing has begun.
        """
        if self._scans and not again:  # what others would tidy away may just be coming in
            self._uploads.tidy()
        self._catalogue.release(self.collection, self._partition)
        if not again:
            reconcile(self.collection, self._catalogue, self._index, self._partition, self._now_ms, self._checkpoint)
        self._catalogue.renew(self.collection, self._partition, self._reading.recipe, self._now_ms())
        self._scan.all_of(self._uploads)
        self._begin(self._index_all, "index")
        for sandbox in self._readers:
            self._begin(lambda sandbox=sandbox: self._read_all(sandbox), "read")
        self._begin(self._optimise_all, "optimise")
        if not self._scans:
            return
        for config in self.config.sources:
            source = self._sources[config.name]
            watch = Watch(source, self._stop) if config.watch and isinstance(source, Folder) else None
            self._begin(lambda s=source, r=config.rescan_s, w=watch: self._rescan_all(s, r, w), "scan")
            if watch is not None and isinstance(source, Folder):
                self._begin(lambda f=source, w=watch: self._follow(f, w), "watch")

    def close(self, timeout_s: float = 30.0) -> None:
        """Stops; what is under way is begun again at the next start. The index stays open."""
        self._stop.set()
        self._wake.set()
        self._queue.close()
        for sandbox in self._readers:
            sandbox.interrupt()
        deadline = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        for sandbox in self._readers:
            sandbox.close()

    # What clients do

    def put(self, header: Header, pieces: Iterable[bytes]) -> str:
        """Takes a document in, in the place of the one with this uri; returns its id. It outlives a crash from then on.

        Raises:
            BodyTooLarge, InvalidRequest, IndexUnavailable: It is not taken.
            StoreUnavailable: It may be taken, or not.
        """
        entry = self._uploads.put(header, pieces, self.config.parsing.max_bytes)
        self._checkpoint("kept")
        with self._uploading:
            # Another may have come in its place since: what is noted has to be what lies there last.
            last = self._uploads.entry(entry.uri) or entry
            self._catalogue.note(self.collection, UPLOADS, [last], self._now_ms(), urgent=True)
        self._checkpoint("noted upload")
        self._wake.set()
        return document_id(self.collection, UPLOADS, header.uri)

    def discard(self, uri: str) -> bool:
        """Removes a document that was sent; whether there was one. Searches find it a moment longer.

        Raises:
            StoreUnavailable: It may be removed, or not; trying again is right.
        """
        with self._uploading:
            there = self._uploads.discard(uri)
            self._checkpoint("discarded")
            gone = self._catalogue.gone(self.collection, [document_id(self.collection, UPLOADS, uri)], self._now_ms())
        self._wake.set()
        return there or gone > 0

    def rescan(self, names: Collection[str] | None = None) -> None:
        """Looks through the sources with these names now, or through all.

        Raises:
            SourceUnavailable: One does not answer, or this is `closed`; those before it were looked through.
        """
        for name, source in self._sources.items():
            if names is None or name in names:
                self._scan.all_of(source)
        for name in self._catalogue.sources(self.collection) if names is None else ():
            if name not in self._sources:
                self._scan.forget(name)
        self._wake.set()

    def settle(self, timeout_s: float) -> bool:
        """Waits until nothing is left to do that is due; whether that came to be."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            left = self._catalogue.unfinished(self.collection, self._partition, due_by_ms=self._now_ms())
            if not left and not self._in_hand:
                return True
            self._stop.wait(0.02)
        return False

    # What goes on

    def _read_all(self, sandbox: Sandbox) -> None:
        while not self._stop.is_set():
            document = self._next()
            if document is None:
                self._wake.wait(_POLL_S)
                self._wake.clear()
                continue
            weight = 1
            found: Read | Exception
            try:
                found = self._reading.read(document, sandbox)
                weight += sum(len(passage.text) for passage in getattr(found, "passages", ()))
            except Exception as error:  # noqa: BLE001 - whatever it is: it is of this document, and it is tried again
                found = error
            if self._stop.is_set():
                return
            self._queue.put((document, found), weight)

    def _next(self) -> Document | None:
        """The next that waits, which is nobody else's from then on."""
        with self._claiming:
            if not self._claimed:
                some = _CLAIM
                if self._far_behind():
                    self._stop.wait(_PACE_S)
                    some = 1  # what is urgent, if anything is
                try:
                    now = self._now_ms()
                    claimed = self._catalogue.claim(self.collection, self._partition, some, now, _LEASE_MS)
                except StoreUnavailable as error:
                    log.warning("%s: %s", self.collection, error.message)
                    return None
                self._drained = not claimed
                self._count(len(claimed))
                self._claimed.extend(claimed)
                if claimed:
                    self._checkpoint("claimed")
            return self._claimed.popleft() if self._claimed else None

    def _far_behind(self) -> bool:
        """Whether graphs are being made, and so many passages wait for one that new ones should come slowly."""
        if not self._optimising:
            return False
        try:
            waiting = _without_graph(self._index.size())
        except (ParkwayError, OSError):
            return False
        if waiting <= _TOO_FAR_BEHIND:
            return False
        if not self._slowed:
            log.info(
                "%s: %d passages wait for a graph: documents come slowly until it is made", self.collection, waiting
            )
        self._slowed = True
        return True

    def _index_all(self) -> None:
        since = time.monotonic()
        pause_s = _BACK_OFF_S[0]
        received = 0  # and not told to the catalogue yet
        while not self._stop.is_set():
            if not self.indexing.pending:
                since = time.monotonic()
            item = self._queue.get(0.02 if not self.indexing.idle else 0.5)
            try:
                if item is not None:
                    received += 1
                    document, found = item
                    if isinstance(found, Exception):
                        self.indexing.fail(document, found)
                    else:
                        self.indexing.add(found)
                elif not self.indexing.idle and (self._all_here(received) or self._waited(since)):
                    self.indexing.flush()
                else:
                    self.indexing.forget()
                if self.indexing.idle and received:
                    self._changed = True
                    self._count(-received)
                    received = 0
                pause_s = _BACK_OFF_S[0]
                if self.indexing.outages:  # reading more would be in vain
                    self._stop.wait(min(_BACK_OFF_S[1], _BACK_OFF_S[0] * 2 ** min(self.indexing.outages - 1, 10)))
            except StoreUnavailable as error:
                log.warning("%s: %s", self.collection, error.message)
                pause_s = self._pause(pause_s)
            except Exception:  # a defect: without this thread nothing of the collection would ever change again
                log.exception("%s: indexing failed; it goes on", self.collection)
                pause_s = self._pause(pause_s)

    def _pause(self, pause_s: float) -> float:
        """Waits; returns how long to wait the next time."""
        self._stop.wait(pause_s)
        return min(_BACK_OFF_S[1], 2 * pause_s)

    def _all_here(self, received: int) -> bool:
        return self._drained and self._in_hand <= received

    def _waited(self, since: float) -> bool:
        return time.monotonic() - since > (_GATHER_S if self.indexing.pending >= FEWEST else 4 * _GATHER_S)

    def _rescan_all(self, source: Source, every_s: float, watch: Watch | None) -> None:
        if watch is not None:
            watch.ready.wait(10)  # so that nothing falls between the scan and the watch
        while not self._stop.is_set():
            wait_s = every_s
            try:
                found = self._scan.all_of(source)
                if found.unknown:
                    self.trouble[source.name] = _unseen(found.unknown)
                else:
                    self.trouble.pop(source.name, None)
                if found.new or found.changed or found.gone:
                    log.info("%s: %s: %s", self.collection, source.name, found)
            except (SourceUnavailable, StoreUnavailable, OSError) as error:
                if self._stop.is_set():
                    return
                self.trouble[source.name] = str(error)
                log.warning("%s: %s could not be looked through: %s", self.collection, source.name, error)
                wait_s = min(every_s, 30.0)
            self._forget_others()
            self._wake.set()
            self._stop.wait(wait_s)

    def _forget_others(self) -> None:
        """Has the documents removed of sources that are configured no more."""
        try:
            for name in self._catalogue.sources(self.collection):
                if name not in self._sources:
                    self._scan.forget(name)
        except (SourceUnavailable, StoreUnavailable) as error:
            log.warning("%s: %s", self.collection, error)

    def _follow(self, folder: Folder, watch: Watch) -> None:
        for paths in watch:
            try:
                self._scan.some_of(folder, paths)
            except (SourceUnavailable, StoreUnavailable, OSError) as error:
                log.warning("%s: changes in %s are seen later: %s", self.collection, folder.name, error)
            self._wake.set()

    def _optimise_all(self) -> None:
        """Optimises in a quiet moment, and while much comes in whenever `_BEHIND` passages or more have changed.

        What is not optimised yet is held in memory, and searched without a graph: each search compares with all of it.
        A large index takes minutes, however little has changed: so that it is not always at it, it rests longer, too.
        """
        last, rest_s = time.monotonic(), self._optimise_s
        while not self._stop.wait(min(self._optimise_s, _LOOK_S)):
            try:
                found = self._index.size()
                enough = min(max(_BEHIND.start, found.passages // 20), _BEHIND.stop)
                behind = _without_graph(found) + found.removed >= enough
                quiet = self._changed and not self._in_hand and time.monotonic() - last >= rest_s
                if not (behind or quiet):
                    continue
                self._changed = False
                began = time.monotonic()
                self._optimise()
                last = time.monotonic()
                rest_s = max(self._optimise_s, _REST * (last - began))
            except Exception:  # a generation that could not be made costs speed and room, and is made later
                log.exception("%s: the index could not be optimised", self.collection)
                last = time.monotonic()
                self._stop.wait(self._optimise_s)

    def _optimise(self) -> None:
        self._optimising = True
        try:
            self._index.optimise()
        finally:
            self._optimising = self._slowed = False

    def _begin(self, work: Callable[[], object], what: str) -> None:
        self._threads.append(start_thread(work, name=f"ingest/{self.collection}/{what}"))

    def _count(self, more: int) -> None:
        with self._counting:
            self._in_hand += more

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)

    @property
    def closed(self) -> bool:
        return self._stop.is_set()

    @property
    def sources(self) -> Sequence[str]:
        """Their names."""
        return list(self._sources)


def _without_graph(size: Size) -> int:
    return size.passages - size.indexed


def _unseen(places: Sequence[Unknown]) -> str:
    more = f", and {len(places) - 1} more places" if len(places) > 1 else ""
    return f"{places[0].below or 'all of it'}: {places[0].reason}{more}"
