"""The embedded store: Qdrant Edge, inside the process that owns the index.

    DIRECTORY/lock           held by the owner; everybody else gets an error
    DIRECTORY/index.json     what the index was made for, and which generation holds
    DIRECTORY/journal/       what was changed since the generation was last on disk as a whole
    DIRECTORY/generation-*/  the passages
    DIRECTORY/replicas/      copies for other processes that search (`replica.py`)

A change is written to the journal and synced, then made; after a crash the journal is carried out again, which changes
nothing twice. `optimise` copies the generation and has a process of its own make the next one of it (`rebuild.py`); if
that ends early, nothing has happened.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
import numpy as np

from parkway.core.errors import IndexDamaged, IndexUnavailable
from parkway.core.tasks import start_thread
from parkway.retrieval.document import Passage
from parkway.retrieval.index.apply import INDEX_RANGES_UP_TO, apply
from parkway.retrieval.index.config import IndexConfig
from parkway.retrieval.index.copying import copy_directory
from parkway.retrieval.index.directory import FORMAT, About, damaged, disk_bytes, lock, read_about, write_about
from parkway.retrieval.index.edge_questions import EdgeQuestions
from parkway.retrieval.index.entry import Entry, document_key, edition_of, entries, for_everyone
from parkway.retrieval.index.generation import Generation, never_changes
from parkway.retrieval.index.index import Size, Vectors
from parkway.retrieval.index.journal import Journal, Position, Record, Remove, Upsert, read
from parkway.retrieval.index.rebuild import Made, Order
from parkway.retrieval.index.replica import Copied, held

CHECKPOINT_BYTES = 64 << 20
"""A journal that has grown by this makes the generation be brought to disk: a start carries out no more again."""

FREE_BYTES = 256 << 20
"""Fewer than this on the disk and nothing is written: Edge maps files, and a full disk would end the process."""

MAX_HELD_BYTES = 1 << 30
"""With a longer journal replicas are waited for no more: they get a new copy."""

REBUILD_S = 6 * 3600.0


class EdgeIndex(EdgeQuestions):
    """An `Index` in a directory of this machine, for one process at a time."""

    def __init__(self, directory: Path, config: IndexConfig, dimensions: int) -> None:
        """Opens the index in `directory`, which is made where there is none.

        Raises:
            IndexUnavailable: Another process has it.
            IndexDamaged: It cannot be read.
            ConfigurationError: It was made for an encoder of other dimensions, or for another language.
        """
        super().__init__(directory, config, dimensions)
        self._changing = threading.Lock()
        self._optimising = threading.Lock()
        self._removed = 0
        self._taken_over: Path | None = None
        directory.mkdir(parents=True, exist_ok=True)
        self._lock = lock(directory / "lock")
        try:
            self._about = read_about(directory, dimensions, config.language) or self._create()
            self._open = self._about.open
            self._generation = self._load()
            start_thread(self._generation.warm, name="index/warm")
        except BaseException:
            os.close(self._lock)
            raise

    # Changes

    def upsert(self, passages: Sequence[Passage], vectors: Vectors) -> None:
        kept = entries(passages, vectors, self._dimensions)
        if not kept:
            return
        array = np.ascontiguousarray(vectors, np.float32)
        record = Upsert(list(passages), array.tobytes())
        with self._change_of():
            if replaced := self._generation.known([entry.passage_id for entry in kept]):
                self._note_removed(replaced)
            fields = {field for entry in kept for field in entry.numbers} - set(self._about.fields)
            if fields and self._generation.passages > INDEX_RANGES_UP_TO:
                self._note(fields=(*self._about.fields, *sorted(fields))[:256])
            if self._open and not for_everyone(passages):
                self._note(open=False)
                self._open = False
            self._change(record, kept)

    def remove(self, document_id: str, *, but: str | None = None) -> None:
        edition = None if but is None else edition_of(document_id, but)
        with self._change_of():
            if self._generation.has(document_key(document_id), edition):
                self._note_removed(1)
                self._change(Remove(document_id, but))

    def optimise(self) -> bool:
        with self._optimising:
            target = self.directory / _new_name()
            removed = self._removed
            try:
                with self._change_of():
                    if not self._worth_it():
                        return False
                    order = self._copy(target)
                self._take_over(target, self._rebuild(order))
            except BaseException:
                with self._changing:
                    self._pinned = None
                    self._removed = max(self._removed, removed)
                if target != self._taken_over:
                    shutil.rmtree(target, ignore_errors=True)
                raise
            return True

    def copy(self, target: Path) -> Copied:
        """A copy for a replica, which goes on with it by reading along in the journal.

        Args:
            target: A directory that is made, on the same disk.

        Raises:
            IndexUnavailable: It cannot be made now.
        """
        with self._change_of():
            self._checkpoint()
            copy_directory(self._generation.directory, target, never_changes)
            return Copied(self._about.generation, self._about.mark, self._journal.number, self._open)

    def size(self) -> Size:
        with self._current() as generation:
            passages, built = generation.passages, generation.built
            indexed = passages - generation.written_since_built() if built["points"] else 0
        if self._changing.acquire(blocking=False):
            try:
                with suppress(OSError):  # it is tried again with the next change
                    self._forget()  # replicas may have read it since
            finally:
                self._changing.release()
        return Size(passages, indexed, removed=self._removed, disk_bytes=disk_bytes(self.directory))

    def close(self) -> None:
        """Brings everything to disk and lets another process open it."""
        with self._optimising, self._changing:
            if self._lock >= 0:
                try:
                    self._checkpoint()
                finally:  # what could not be brought to disk stands in the journal
                    self._generation.retire(delete=False)
                    self._journal.close()
                    os.close(self._lock)
                    self._lock = -1

    def _check_open(self) -> None:
        if self._lock < 0:
            raise IndexUnavailable(f"the index in {self.directory} is closed")

    # How a change is made

    @contextmanager
    def _change_of(self) -> Iterator[None]:
        """While nobody else writes. Raises: IndexUnavailable: It is closed, or the disk fails."""
        with self._changing:
            self._check_open()
            try:
                yield
            except OSError as error:
                raise IndexUnavailable(f"{self.directory}: {error.strerror or error}") from error

    def _change(self, record: Record, kept: Sequence[Entry] | None = None) -> None:
        if shutil.disk_usage(self.directory).free < FREE_BYTES:
            raise IndexUnavailable(f"{self.directory}: fewer than {FREE_BYTES >> 20} MiB are free on this disk")
        try:
            self._journal.append(record)
        except OSError as error:
            raise IndexUnavailable(f"{self.directory}: {error.strerror}; nothing was written") from error
        apply(record, self._generation, self._words, self._dimensions, self._about.mark + 1, self._turns, kept)
        if self._journal.bytes - self._behind > CHECKPOINT_BYTES:
            self._checkpoint()

    def _checkpoint(self) -> None:
        """Brings the generation to disk. The journal up to here is needed no more, unless somebody reads along."""
        self._generation.flush()
        self._note(journal=self._journal.rotate())
        self._forget()
        self._behind = self._journal.bytes

    def _forget(self) -> None:
        """Removes what nobody needs of the journal."""
        read_along = [] if self._pinned is None else [self._pinned]
        if self._journal.bytes < MAX_HELD_BYTES:
            read_along += held(self.directory)
        self._journal.forget(min([self._about.journal, *read_along]))

    def _note_removed(self, count: int) -> None:
        self._removed += count
        if not self._about.removed:
            self._note(removed=True)

    def _note(self, **changes: object) -> None:
        about = msgspec.structs.replace(self._about, **changes)
        write_about(self.directory, about)
        self._about = about

    # How the next generation is made

    def _worth_it(self) -> bool:
        without_graph = self._generation.written_since_built() > 0
        return self._about.removed or (without_graph and self._generation.passages >= self._config.graph_from)

    def _copy(self, target: Path) -> Order:
        """A copy of the present generation for `rebuild`, while nobody writes."""
        needed = disk_bytes(self._generation.directory) + FREE_BYTES
        if shutil.disk_usage(self.directory).free < needed:
            raise IndexUnavailable(f"{self.directory}: optimising needs {needed >> 20} MiB that are free on this disk")
        self._checkpoint()
        self._pinned = self._journal.number
        mark = self._about.mark + 1
        self._note(mark=mark)  # from here on passages carry a higher one: they are not in what is being made
        self._removed = 0
        copy_directory(self._generation.directory, target, never_changes)
        return Order(
            directory=str(target),
            journal=str(self._journal.directory),
            config=self._config.model_dump_json(),
            dimensions=self._dimensions,
            mark=mark,
            fields=list(self._about.fields),
            start=(self._pinned, 0),
        )

    def _rebuild(self, order: Order) -> Made:
        command = [sys.executable, "-P", "-m", "parkway.retrieval.index.rebuild"]
        try:
            done = subprocess.run(  # noqa: S603 - our own module, by our own interpreter
                command, input=msgspec.json.encode(order), capture_output=True, timeout=REBUILD_S, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise IndexUnavailable(f"{self.directory}: optimising took longer than {REBUILD_S:g} s") from error
        if done.returncode != 0:
            told = done.stderr.decode("utf-8", "replace").strip()[-1000:]
            raise IndexUnavailable(f"{self.directory}: optimising ended with status {done.returncode}: {told}")
        return msgspec.json.decode(done.stdout, type=Made)

    def _take_over(self, target: Path, made: Made) -> None:
        """Opens what was made, carries out what has been changed since, and goes on with it."""
        made_one = Generation.load(target)
        made_one.warm()
        end = self._catch_up(made_one, made.end)
        with self._change_of():
            self._catch_up(made_one, end)
            made_one.flush()
            journal = self._journal.rotate()
            self._taken_over = target  # from here on index.json may name it
            self._note(generation=target.name, removed=self._removed > 0, journal=journal)
            old, self._generation = self._generation, made_one
            old.retire(delete=True)
            self._pinned = None
            self._forget()
            self._behind = self._journal.bytes

    def _catch_up(self, generation: Generation, end: Position) -> Position:
        for record, position in read(self._journal.directory, end):
            apply(record, generation, self._words, self._dimensions, self._about.mark + 1, self._turns)
            end = position
        return end

    # How it begins

    def _create(self) -> About:
        directory = self.directory / _new_name()
        Generation.create(directory, self._config, self._dimensions).retire(delete=False)
        about = About(FORMAT, self._dimensions, self._config.language, generation=directory.name, mark=0, open=True)
        write_about(self.directory, about)
        return about

    def _load(self) -> Generation:
        present = self.directory / self._about.generation
        for other in self.directory.glob("generation-*"):
            if other != present:
                shutil.rmtree(other, ignore_errors=True)
        try:
            generation = Generation.load(present)
            self._journal = Journal(self.directory / "journal")
            if self._about.journal and self._about.journal not in self._journal.numbers():
                raise IndexDamaged(f"its journal has no file {self._about.journal}")
            end: Position = (self._about.journal, 0)
            for record, position in read(self._journal.directory, end):
                apply(record, generation, self._words, self._dimensions, self._about.mark + 1)
                end = position
        except IndexDamaged as error:
            raise IndexDamaged(damaged(self.directory, str(error))) from error
        self._journal.cut_off(end)
        self._pinned: int | None = None
        self._behind = 0
        self._removed = int(self._about.removed)
        return generation


def _new_name() -> str:
    """Of a generation: another each time, so that nothing that was left of an earlier attempt can get into it."""
    return f"generation-{uuid.uuid4().hex[:12]}"
