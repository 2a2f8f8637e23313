"""Word of what changes in a folder, from the operating system."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import watchfiles

from parkway.retrieval.ingest.folder import Folder

log = logging.getLogger(__name__)
logging.getLogger("watchfiles").setLevel(logging.WARNING)  # it has a line for each change, also of a log's own file

_GATHER_MS, _STEP_MS, _PATIENCE_S = 300, 50, 5.0
_MOST = 1000  # paths; of more the folders above them are looked through


class Watch:
    """Iterating over it gives the paths at which something happened, until `stop` is set.

    Attributes:
        ready: Set once changes are seen, or it is clear that they are not.
    """

    def __init__(self, folder: Folder, stop: threading.Event) -> None:
        self.ready = threading.Event()
        self._folder = folder
        self._stop = stop

    def __iter__(self) -> Iterator[list[Path]]:
        again = told = False
        while not self._stop.is_set():
            try:
                for paths in self._changes(all_of_it=again):
                    told = False
                    yield paths
            except (OSError, RuntimeError) as error:
                # No such folder yet, or too many are watched on this machine: looking through it finds changes, too.
                if not told:
                    log.warning(
                        "%s cannot be watched (%s); changes are seen by looking through it", self._folder.root, error
                    )
                told = True
                self.ready.set()
                self._stop.wait(_PATIENCE_S)
            again = True
        self.ready.set()

    def _changes(self, *, all_of_it: bool) -> Iterator[list[Path]]:
        """Until another folder comes in its place: what the system watches is the one that was.

        Args:
            all_of_it: Something may have happened anywhere before it was watched.
        """
        place = self._folder.place()
        found = watchfiles.watch(
            self._folder.root,
            watch_filter=None,
            debounce=_GATHER_MS,
            step=_STEP_MS,
            rust_timeout=500,
            yield_on_timeout=True,
            stop_event=self._stop,
            raise_interrupt=False,
        )
        for changes in found:
            self.ready.set()
            if self._folder.place() != place:
                return
            if all_of_it:
                yield [self._folder.root]
            elif paths := self._without_own({Path(name) for _, name in changes}):
                yield self._narrowed(paths)
            all_of_it = False

    def _without_own(self, paths: set[Path]) -> set[Path]:
        """Those that are not in Parkway's home, which is written to all the time."""
        own = self._folder.own
        return {path for path in paths if own is None or not path.is_relative_to(own)}

    def _narrowed(self, paths: set[Path]) -> list[Path]:
        """The paths, or if they are many those above them."""
        while len(paths) > _MOST:
            paths = {path.parent if path != self._folder.root else path for path in paths}
        return sorted(path for path in paths if not any(above in paths for above in path.parents))
