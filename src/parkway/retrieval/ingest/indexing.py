"""From passages to the index: embedded in batches over documents, written, and only then said to be there.

The order is what makes it safe to be killed anywhere. All passages of a document's new version are written before those
of older ones are removed, and both before the catalogue says `indexed`. Each step says what shall be and not what
shall be added, so a document that is begun again ends the same.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from parkway.core.errors import IndexUnavailable, ParkwayError, StoreUnavailable
from parkway.retrieval.catalogue import MAX_WAIT_MS, Catalogue, Document, Outcome
from parkway.retrieval.document import Passage
from parkway.retrieval.index.index import Index
from parkway.retrieval.ingest.embedding import Embedding
from parkway.retrieval.ingest.leaving import Leaving
from parkway.retrieval.ingest.reading import Gone, Prepared, Read, Refused, Unchanged
from parkway.retrieval.ingest.scan import Checkpoint
from parkway.retrieval.ingest.source import Away

log = logging.getLogger(__name__)

FEWEST, MOST = 500, 1000
"""Passages that are embedded together, while there are so many."""

MAX_ATTEMPTS = 8
_FIRST_MS = 1_000
_TOGETHER = 256  # documents that are said to be indexed in one transaction


@dataclass(slots=True)
class Failures:
    """Documents that could not be taken in: for good until they change, or until they are tried again."""

    set_aside: int = 0
    postponed: int = 0


@dataclass(slots=True)
class _Job:
    """A document on its way.

    Attributes:
        left: Passages that are not in the index yet.
        failed: Whether it was given up; what is left of it is passed over.
    """

    prepared: Prepared
    left: int
    failed: bool = False


class Indexing:
    """For one thread."""

    def __init__(
        self,
        catalogue: Catalogue,
        index: Index,
        embedding: Embedding,
        recipe: str,
        now_ms: Callable[[], int],
        checkpoint: Checkpoint = lambda _: None,
        failures: Failures | None = None,
    ) -> None:
        self.failures = failures or Failures()
        self._catalogue = catalogue
        self._index = index
        self._embedding = embedding
        self._recipe = recipe
        self._now_ms = now_ms
        self._checkpoint = checkpoint
        self._pending: list[tuple[_Job, Passage]] = []
        self._outcomes: list[Outcome] = []
        self._leaving = Leaving()
        self.embedded = 0
        """Passages that were embedded, rather than found again."""
        self.batches = 0
        """In which they were."""
        self.outages = 0
        """Batches in a row that failed for no fault of theirs."""

    @property
    def pending(self) -> int:
        """Passages that wait for others to be embedded with."""
        return len(self._pending)

    @property
    def idle(self) -> bool:
        """Whether nothing is in hand here."""
        return not self._pending and not self._outcomes

    def add(self, read: Read) -> None:
        """Takes what was read; works on it when there is a batch of it.

        Raises:
            StoreUnavailable: The catalogue could not be told; all of it is kept, to be told by the next call.
        """
        if isinstance(read, Prepared):
            if read.document.attempt:  # it may be what broke the last batch: nobody else should suffer from it
                self.flush()
            job = _Job(read, len(read.passages))
            self._pending.extend((job, passage) for passage in read.passages)
            read.passages = []
            if read.document.attempt:
                self.flush()
        else:
            self._outcomes.append(self._settled(read))
        while len(self._pending) >= MOST:
            self._write(MOST)
        if len(self._outcomes) >= _TOGETHER:
            self._tell()

    def flush(self) -> None:
        """Works on all that it has, and tells the catalogue.

        Raises:
            StoreUnavailable: As of `add`.
        """
        while self._pending:
            self._write(MOST)
        self._tell()

    def forget(self) -> None:
        """Lets go of what was kept for a while and is needed no more; to be called now and then."""
        self._leaving.expire(self._now_ms())

    def fail(self, document: Document, error: Exception) -> None:
        """Takes down that a document could not be read, which may pass."""
        self._outcomes.append(self._postponed(document, error, bounded=not passes(error)))

    def _settled(self, read: Unchanged | Refused | Gone) -> Outcome:
        document = read.document
        if isinstance(read, Unchanged):
            return Outcome(
                document,
                "indexed",
                version=document.version,
                passages=document.passages,
                content_hash=read.content,
                bytes=read.bytes,
                recipe=self._recipe,
            )
        try:
            if isinstance(read, Gone) and not self._leaving.full:
                contents = [passage.content for passage in self._index.passages(document.document_id)]
                self._leaving.keep(self._index.vectors(contents), self._now_ms())
            self._index.remove(document.document_id)
        except (IndexUnavailable, OSError) as error:
            return self._postponed(document, error, bounded=False)
        self._checkpoint("removed")
        if isinstance(read, Gone):
            return Outcome(document, "removing")
        self.failures.set_aside += 1
        return Outcome(document, "set_aside", reason=read.reason[:2000], recipe=self._recipe)

    def _write(self, most: int) -> None:
        batch, self._pending = self._pending[:most], self._pending[most:]
        batch = [(job, passage) for job, passage in batch if not job.failed]
        if not batch:
            return
        jobs = {id(job): job for job, _ in batch}.values()
        try:
            self._upsert([passage for _, passage in batch])
            for job, _ in batch:
                job.left -= 1
            done = [job for job in jobs if not job.left]
            for job in done:
                self._index.remove(job.prepared.document.document_id, but=job.prepared.version)
                self._checkpoint("replaced")
        except Exception as error:  # noqa: BLE001 - whatever it is: it costs these documents some time, or the one
            self.outages = self.outages + 1 if passes(error) else 0
            for job in jobs:
                self._give_up(job, error, alone=len(jobs) == 1)
            return
        self.outages = 0
        self._outcomes.extend(self._indexed(job.prepared) for job in done)

    def _upsert(self, passages: Sequence[Passage]) -> None:
        """Puts passages in; embeds what the index does not know the vectors of."""
        vectors: dict[str, Any] = self._index.vectors([passage.content for passage in passages])
        vectors |= self._leaving.take({passage.content for passage in passages} - vectors.keys())
        missing = {passage.content: passage.searched for passage in passages if passage.content not in vectors}
        if missing:
            made = np.asarray(self._embedding.embed(list(missing.values())), np.float32)
            if made.shape != (len(missing), self._embedding.dimensions):
                raise ValueError(f"the encoder made vectors of the shape {made.shape} of {len(missing)} texts")
            vectors.update(zip(missing, made, strict=True))
            self.embedded += len(missing)
            self.batches += 1
        self._checkpoint("embedded")
        self._index.upsert(passages, np.stack([vectors[passage.content] for passage in passages]))
        self._checkpoint("upserted")

    def _indexed(self, prepared: Prepared) -> Outcome:
        return Outcome(
            prepared.document,
            "indexed",
            version=prepared.version,
            passages=prepared.count,
            reason=prepared.remark,
            title=prepared.title,
            content_hash=prepared.content,
            bytes=prepared.bytes,
            characters=prepared.characters,
            recipe=self._recipe,
        )

    def _give_up(self, job: _Job, error: Exception, *, alone: bool) -> None:
        job.failed = True
        document = job.prepared.document
        if alone and isinstance(error, ValueError):
            self._outcomes.append(self._settled(Refused(document, f"cannot be indexed: {error}")))
        else:
            self._outcomes.append(self._postponed(document, error, bounded=not passes(error)))

    def _postponed(self, document: Document, error: Exception, *, bounded: bool) -> Outcome:
        attempt = document.attempt + 1
        reason = f"{type(error).__name__}: {error}"[:1000]
        if bounded and attempt >= MAX_ATTEMPTS:
            log.warning("%s: %s is set aside: %s", document.collection, document.uri, reason)
            given_up = f"failed {attempt} times; it is tried again when its source is looked through: {reason}"
            refused = self._settled(Refused(document, given_up))
            return refused if refused.state != "set_aside" else _again(refused)
        self.failures.postponed += 1
        wait_ms = min(MAX_WAIT_MS, _FIRST_MS << min(document.attempt, 20))
        log.info("%s: %s is tried again in %g s: %s", document.collection, document.uri, wait_ms / 1000, reason)
        return Outcome(document, "waiting", reason=reason, due_ms=self._now_ms() + wait_ms)

    def _tell(self) -> None:
        """Says in the catalogue what became of documents; keeps what it could not say."""
        while self._outcomes:
            some = self._outcomes[:_TOGETHER]
            self._checkpoint("finishing")
            self._catalogue.finish(some, self._now_ms())
            del self._outcomes[: len(some)]
            self._checkpoint("finished")


def _again(outcome: Outcome) -> Outcome:
    return Outcome(outcome.document, "set_aside", reason=outcome.reason, recipe=outcome.recipe, again=True)


def passes(error: Exception) -> bool:
    """Whether a failure is of what everybody needs, and so says nothing of the document."""
    if isinstance(error, IndexUnavailable | StoreUnavailable | Away | ConnectionError | TimeoutError):
        return True
    return isinstance(error, ParkwayError) and error.status in (429, 500, 502, 503, 504)
