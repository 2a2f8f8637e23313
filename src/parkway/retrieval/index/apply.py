"""Carrying out what stands in a journal."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import numpy as np

from parkway.retrieval.index.entry import Entry, document_key, edition_of, entries
from parkway.retrieval.index.generation import SLICE, Generation
from parkway.retrieval.index.journal import Record, Remove
from parkway.retrieval.index.words import Words

INDEX_RANGES_UP_TO = 20_000
"""With more passages than this an index of numbers that is new waits for the next generation: it would take seconds."""


A_MOMENT_S = 50e-6
"""Between two pieces: a thread that goes on at once has the interpreter's lock again before any other."""

LONGEST_WAIT_S = 0.008


class Turns:
    """Searches that go on (`with turns`), and a writer that lets them go first, piece by piece."""

    def __init__(self) -> None:
        self._none = threading.Condition()
        self._searches = 0

    def __enter__(self) -> None:
        with self._none:
            self._searches += 1

    def __exit__(self, *_: object) -> None:
        with self._none:
            self._searches -= 1
            if self._searches == 0:
                self._none.notify_all()

    def wait(self) -> None:
        """Until no search goes on, but no longer than `LONGEST_WAIT_S`: then the writer has its turn."""
        with self._none:
            self._none.wait_for(lambda: self._searches == 0, LONGEST_WAIT_S)


def apply(
    record: Record,
    generation: Generation,
    words: Words,
    dimensions: int,
    mark: int,
    turns: Turns | None = None,
    kept: Sequence[Entry] | None = None,
) -> None:
    """Makes one change. Making it twice is making it once.

    Args:
        mark: What passages carry that are written: higher than any that stands in a graph.
        turns: Searches that shall have their turn in between.
        kept: What is to be kept of the record's passages, where that is known already.
    """
    if isinstance(record, Remove):
        but = None if record.but is None else edition_of(record.document_id, record.but)
        generation.remove(document_key(record.document_id), but)
        return
    vectors = np.frombuffer(record.vectors, np.float32).reshape(-1, dimensions)
    kept = entries(record.passages, vectors, dimensions) if kept is None else kept
    if generation.passages <= INDEX_RANGES_UP_TO:
        generation.index_ranges(sorted({field for entry in kept for field in entry.numbers}))
    for start in range(0, len(kept), SLICE):
        part = slice(start, start + SLICE)
        terms = [words.of_passage(passage.searched) for passage in record.passages[part]]
        generation.write(kept[part], vectors[part], terms, mark)
        if turns is not None:
            time.sleep(A_MOMENT_S)
            turns.wait()
