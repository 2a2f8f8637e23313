"""An index that says whether it has changed."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable, Sequence

from parkway.retrieval.document import Passage
from parkway.retrieval.index.index import Candidate, Index, Query, Size, Vectors


class RevisedIndex:
    """An `Index` around another one.

    Args:
        changed: Called after each change, before the call that made it returns.
    """

    def __init__(self, index: Index, changed: Callable[[], None] = lambda: None) -> None:
        self._index = self.inner = index
        self._life = secrets.token_hex(8)  # what was counted before is not known any more
        self._numbers = itertools.count(1)
        self._change = 0
        self.changed = changed

    def revision(self) -> str:
        """The same as before only if nothing has changed since."""
        return f"{self._life}.{self._change}"

    def upsert(self, passages: Sequence[Passage], vectors: Vectors) -> None:
        try:
            self._index.upsert(passages, vectors)
        finally:  # also of one that failed there may be a part
            self._note()

    def remove(self, document_id: str, *, but: str | None = None) -> None:
        try:
            self._index.remove(document_id, but=but)
        finally:
            self._note()

    def search(self, query: Query) -> list[Candidate]:
        return self._index.search(query)

    def vectors(self, contents: Sequence[str]) -> dict[str, Vectors]:
        return self._index.vectors(contents)

    def passages(self, document_id: str) -> list[Passage]:
        return self._index.passages(document_id)

    def documents(self) -> dict[str, set[str]]:
        return self._index.documents()

    def optimise(self) -> bool:
        return self._index.optimise()

    def size(self) -> Size:
        return self._index.size()

    def close(self) -> None:
        self._index.close()

    def _note(self) -> None:
        self._change = next(self._numbers)
        self.changed()
