"""A replica of an embedded index: a copy of its generation, which follows its journal. It is searched, never written.

    DIRECTORY/replicas/N/lock          held by the process whose replica it is
    DIRECTORY/replicas/N/position      what it still needs of the journal, and how far it is
    DIRECTORY/replicas/N/generation-*/ the copy; large files that never change are the owner's own

What the owner does is seen here a moment later. Once the owner has opened its next generation, the replica gets a copy.
"""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import shutil
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import msgspec

from parkway.core.errors import IndexDamaged, IndexUnavailable, ParkwayError
from parkway.core.tasks import start_thread
from parkway.retrieval.index.apply import apply
from parkway.retrieval.index.config import IndexConfig
from parkway.retrieval.index.directory import lock, read_about
from parkway.retrieval.index.edge_questions import EdgeQuestions
from parkway.retrieval.index.entry import for_everyone
from parkway.retrieval.index.generation import Generation
from parkway.retrieval.index.index import Candidate, Query
from parkway.retrieval.index.journal import Position, Remove, grown, read

log = logging.getLogger(__name__)

MAX_LAG_S = 5.0
"""One that is further behind does not answer: others are asked."""

POLL_S, LOOK_S = 0.05, 1.0


class Copied(msgspec.Struct, frozen=True):
    """What a copy is of.

    Attributes:
        generation: The name of the owner's.
        mark: The highest that stands in a graph there.
        journal: The file of the journal that has all that the copy has not.
        open: Everybody may see all that it has.
    """

    generation: str
    mark: int
    journal: int
    open: bool


class _Position(msgspec.Struct, frozen=True):
    """Attributes:
    journal: The file of the journal that is still needed, with all after it.
    as_of: What the owner had done until then is here; seconds since 1970, 0 without a copy.
    """

    journal: int
    as_of: float


def replica_place(directory: Path, number: int) -> Path:
    """Where the replica with this number lies, of the index in `directory`."""
    return directory / "replicas" / str(number)


def held(directory: Path) -> list[int]:
    """The files of the journal of the index in `directory` that its replicas read."""
    return [position.journal for position in _positions(directory).values()]


def lags_s(directory: Path) -> dict[int, float]:
    """How far each replica of the index in `directory` is behind, in seconds, by its number."""
    now = time.time()
    return {number: max(0.0, now - each.as_of) for number, each in _positions(directory).items() if each.as_of}


def _write_position(place: Path, position: _Position) -> None:
    beside = place / "position.new"
    beside.write_bytes(msgspec.json.encode(position))
    beside.replace(place / "position")


def _positions(directory: Path) -> dict[int, _Position]:
    """Of the replicas that live."""
    found: dict[int, _Position] = {}
    for place in (directory / "replicas").glob("*"):
        try:
            if not _free(place / "lock"):
                found[int(place.name)] = msgspec.json.decode((place / "position").read_bytes(), type=_Position)
        except (OSError, ValueError):
            continue  # it has not begun, or is gone
    return found


def _free(path: Path) -> bool:
    """Whether nobody holds the lock."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


class ReplicaIndex(EdgeQuestions):
    """The questions of an `Index`, answered as the owner would have answered a moment ago."""

    def __init__(
        self,
        directory: Path,
        number: int,
        config: IndexConfig,
        dimensions: int,
        copy: Callable[[Path], Copied],
        max_lag_s: float = MAX_LAG_S,
    ) -> None:
        """Opens it, and follows from then on.

        Args:
            directory: The index's own.
            number: Another for each replica.
            copy: Has the owner copy its generation to a path, which is on the same disk. Raises: IndexUnavailable.

        Raises:
            IndexUnavailable: The owner does not answer, or another process is this replica.
            IndexDamaged: The copy cannot be read.
        """
        super().__init__(directory, config, dimensions)
        self._copy = copy
        self._max_lag_s = max_lag_s
        self._place = replica_place(directory, number)
        self._place.mkdir(parents=True, exist_ok=True)
        self._lock = lock(self._place / "lock")
        self._following = threading.Lock()
        self._stop = threading.Event()
        self._lost = False
        self._life, self._changes = secrets.token_hex(8), 0
        self.changed: Callable[[], None] = lambda: None
        """Called after each change."""
        self._as_of = self._noted = 0.0
        self._own = set[str]()
        try:
            self._clear()
            self._needed: int | None = max(_files(directory), default=0)
            self._note()
            began = time.time()
            self._generation, self._copied, self._end = self._copied_one()
            self._needed, self._as_of = None, began
        except BaseException:
            os.close(self._lock)
            raise
        self._threads = [start_thread(work, name="index/replica") for work in (self._follow, self._keep_new)]

    @property
    def lag_s(self) -> float:
        """For so long it may lack what the owner has."""
        return time.time() - self._as_of

    @property
    def erased(self) -> bool:
        """Whether the owner has removed the index; there may be another one in its place."""
        return not (self._place / "lock").exists()

    def revision(self) -> str:
        """The same as before only if nothing has changed here since. Raises: IndexUnavailable: It is too far behind."""
        self._check_lag()
        return f"{self._life}.{self._changes}"

    def search(self, query: Query) -> list[Candidate]:
        """Raises: IndexUnavailable: It is too far behind."""
        self._check_lag()
        return super().search(query)

    def close(self) -> None:
        """Lets go of the journal, and removes the copy."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        if self._lock >= 0:
            self._generation.retire(delete=True)
            os.close(self._lock)
            self._lock = -1

    def _check_lag(self) -> None:
        if self.lag_s > self._max_lag_s:
            raise IndexUnavailable(f"this replica is {self.lag_s:.1f} s behind its owner", retry_after_s=1)

    def _check_open(self) -> None:
        if self._stop.is_set():
            raise IndexUnavailable(f"the replica in {self._place} is closed")

    # How it follows

    def _follow(self) -> None:
        while not self._stop.wait(POLL_S):
            try:
                with self._following:
                    self._advance()
            except (IndexUnavailable, IndexDamaged, OSError) as error:
                log.warning("%s: cannot follow its owner, and gets a new copy: %s", self._place, error)
                self._lost = True
                self._stop.wait(LOOK_S)

    def _advance(self) -> None:
        """Carries out what is new in the journal."""
        began = time.time()
        if grown(self.directory / "journal", self._end):
            self._end = self._read(self._generation, self._copied, self._end)
        self._as_of = began
        if began - self._noted > LOOK_S:
            self._note()

    def _read(self, generation: Generation, copied: Copied, end: Position) -> Position:
        newest = max(_files(self.directory), default=0)
        for record, position in read(self.directory / "journal", end):
            self._open = self._open and (isinstance(record, Remove) or for_everyone(record.passages))
            apply(record, generation, self._words, self._dimensions, copied.mark + 1, self._turns)
            end = position
            self._changes += 1
            self.changed()
            self._check_open()
        if end[0] not in _files(self.directory):
            raise IndexUnavailable("the journal begins later than the copy ends")
        return max(end, (newest, 0))  # all before the newest was read to its end, and is needed no more

    def _note(self) -> None:
        """Tells the owner what of the journal is still needed, and how far this is."""
        needed = self._end[0] if self._needed is None else self._needed
        _write_position(self._place, _Position(needed, self._as_of))
        self._noted = time.time()

    # How it gets a new copy

    def _keep_new(self) -> None:
        """The owner's newest generation has graphs of what stands in none here, and nothing of what was removed."""
        while not self._stop.wait(LOOK_S):
            self._clear()
            try:
                about = read_about(self.directory, self._dimensions, self._config.language)
                if self._lost or (about is not None and about.generation != self._copied.generation):
                    self._renew()
            except (ParkwayError, OSError) as error:  # it goes on with what it has, as long as that follows
                log.warning("%s: no new copy: %s", self._place, error)
                self._stop.wait(LOOK_S)

    def _renew(self) -> None:
        with self._following:
            self._needed = self._end[0]
        try:
            generation, copied, end = self._copied_one()
            with self._following:
                end = self._read(generation, copied, end)
                old, self._generation, self._copied, self._end = self._generation, generation, copied, end
                self._lost = False
        finally:
            self._needed = None
        old.retire(delete=True)

    def _clear(self) -> None:
        """Removes copies for a process that was this replica before, also one that is made only now."""
        for left in self._place.glob("generation-*"):
            if left.name not in self._own:
                shutil.rmtree(left, ignore_errors=True)

    def _copied_one(self) -> tuple[Generation, Copied, Position]:
        """A copy that has nearly all that the owner has."""
        target = self._place / f"generation-{uuid.uuid4().hex[:12]}"
        self._own.add(target.name)
        try:
            copied = self._copy(target)
            self._open = self._open and copied.open
            generation = Generation.load(target)
            generation.warm()
            return generation, copied, self._read(generation, copied, (copied.journal, 0))
        except BaseException:
            shutil.rmtree(target, ignore_errors=True)
            raise


def _files(directory: Path) -> list[int]:
    """The numbers of those of the journal."""
    return [int(path.stem) for path in (directory / "journal").glob("*.log") if path.stem.isdigit()]
