"""Comparing what a source has with what the catalogue knows: new, changed, gone."""

from __future__ import annotations

import itertools
import logging
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from parkway.retrieval.catalogue import Catalogue, Changes, document_id
from parkway.retrieval.ingest.folder import Folder
from parkway.retrieval.ingest.source import Entry, Source, SourceUnavailable, Unknown

log = logging.getLogger(__name__)

BATCH = 500

Checkpoint = Callable[[str], None]
"""Told at each boundary which one it is; a test ends the process there."""


class Scan:
    """Scans of the sources of one collection.

    Whatever a scan takes down is true by itself: one that ends early is made up for by the next.
    """

    def __init__(
        self,
        collection: str,
        catalogue: Catalogue,
        now_ms: Callable[[], int],
        checkpoint: Checkpoint = lambda _: None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        """
        Args:
            stopped: Whether it is others who look through the sources from now on, in other ways perhaps.
        """
        self._collection = collection
        self._catalogue = catalogue
        self._now_ms = now_ms
        self._checkpoint = checkpoint
        self._stopped = stopped
        self._places: dict[str, tuple[int, int]] = {}
        """Where folders were when they were looked through, by source."""

    def all_of(self, source: Source, *, urgent: bool = False) -> Changes:
        """Looks through all of a source. Holds eight bytes for each document.

        Raises:
            SourceUnavailable: It does not answer; what was seen until then is taken down, and nothing is gone.
            StoreUnavailable: The same of the database.
        """
        place = source.place() if isinstance(source, Folder) else None
        began, seen = self._now_ms(), array("Q")
        found = self._note(source, source.entries(), seen, urgent=urgent)
        if isinstance(source, Folder):
            self._check_there(source, place)
        return found + self._gone(source.name, "", seen, found.unknown, began)

    def some_of(self, source: Folder, paths: Iterable[Path]) -> Changes:
        """Looks at some paths of a folder, each with all below it: those at which something happened.

        Raises as `all_of` does.
        """
        found = Changes()
        for path in paths:
            if path == source.root:
                found = found + self.all_of(source, urgent=True)
                continue
            began, seen = self._now_ms(), array("Q")
            here = self._note(source, source.at(path), seen, urgent=True)
            place, known = source.place(), self._places.get(source.name)
            if known is not None and (place is None or place[0] != known[0]):
                raise SourceUnavailable(f"{source.root} is on another disk than it was")
            uri = source.uri(path)
            if self._key(source.name, uri) not in seen:
                identifier = document_id(self._collection, source.name, uri)
                here.gone += self._catalogue.gone(self._collection, [identifier], self._now_ms())
            found = found + here + self._gone(source.name, uri, seen, here.unknown, began)
        return found

    def forget(self, source: str) -> Changes:
        """Has all documents of a source removed that is none any more."""
        return self._gone(source, "", array("Q"), [], self._now_ms())

    def _check_there(self, folder: Folder, before: tuple[int, int] | None) -> None:
        """Sees that what was not listed is gone, and not the disk that it is on.

        Raises:
            SourceUnavailable: Another disk came in this one's place; or all is gone, and nobody saw it go.
        """
        place = folder.place()
        if before is None or place is None or before[0] != place[0]:
            raise SourceUnavailable(f"{folder.root} went away while it was looked through")
        seen_full = place == self._places.get(folder.name)
        if not seen_full and folder.vacant() and self._catalogue.below(self._collection, folder.name, ""):
            raise SourceUnavailable(
                f"{folder.root} is empty, as it is when its disk is not mounted, so its documents stay; "
                "if they are to go, put any file there, or remove the source"
            )
        self._places[folder.name] = place

    def _note(self, source: Source, entries: Iterator[Entry | Unknown], seen: array[int], *, urgent: bool) -> Changes:
        found = Changes()
        while batch := list(itertools.islice(entries, BATCH)):
            known = [one for one in batch if isinstance(one, Entry)]
            for one in batch:
                if isinstance(one, Unknown):
                    log.warning("%s, %s: %s %s", self._collection, source.name, one.below or "all of it", one.reason)
                    found.unknown.append(one)
            self._checkpoint("listed")
            self._check_stopped()
            if known:
                found += self._catalogue.note(self._collection, source.name, known, self._now_ms(), urgent=urgent)
            self._checkpoint("noted")
            seen.extend(self._key(source.name, one.uri) for one in known)
        return found

    def _gone(self, source: str, folder: str, seen: array[int], unknown: list[Unknown], began_ms: int) -> Changes:
        """Has those removed that were not seen, below a folder or all; but not what others have noted since."""
        found = Changes()
        there = array("Q", sorted(seen))
        after = ""
        while page := self._catalogue.below(self._collection, source, folder, after, until_ms=began_ms):
            self._check_stopped()
            after = page[-1][1]
            gone = [
                identifier
                for identifier, uri in page
                if not _has(there, int(identifier[:16], 16)) and not any(uri.startswith(one.below) for one in unknown)
            ]
            if gone:
                found.gone += self._catalogue.gone(self._collection, gone, self._now_ms())
                self._checkpoint("gone")
        return found

    def _check_stopped(self) -> None:
        if self._stopped():
            raise SourceUnavailable(f"{self._collection} is looked through by others now")

    def _key(self, source: str, uri: str) -> int:
        return int(document_id(self._collection, source, uri)[:16], 16)


def _has(there: array[int], key: int) -> bool:
    at = bisect_left(there, key)
    return at < len(there) and there[at] == key
