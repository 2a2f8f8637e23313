"""The index of another partition, searched over HTTP: what is merged are its candidates, with their vectors, so that
several partitions are ranked as one."""

from __future__ import annotations

import http.client
import threading
from typing import Any
from urllib.parse import quote, urlsplit

import msgspec
import numpy as np

from parkway.core.errors import IndexUnavailable
from parkway.retrieval.document import Passage, Value
from parkway.retrieval.index.index import Between, Candidate, Filter, Index, Query

MAX_ANSWER_BYTES = 256 << 20


class _Range(msgspec.Struct, frozen=True, tag="between"):
    at_least: float | str | None = None
    at_most: float | str | None = None


class _OneOf(msgspec.Struct, frozen=True, tag="one of"):
    values: list[Value]


class _Equal(msgspec.Struct, frozen=True, tag="equal"):
    value: Value


class _Question(msgspec.Struct, frozen=True):
    """A `Query` on the wire; `only` are the fields of its filter that name some alone."""

    text: str
    vector: bytes | None
    principals: list[str]
    metadata: dict[str, _Range | _OneOf | _Equal]
    only: dict[str, list[str]]
    keyword_depth: int
    vector_depth: int
    exact: bool
    effort: int | None


class _Candidate(msgspec.Struct, frozen=True):
    passage: Passage
    keyword_score: float | None
    vector_score: float | None
    vector: bytes


def answer(index: Index, body: bytes) -> bytes:
    """What `index` finds, for a question of `PartitionIndex.search`. Blocks.

    Raises:
        msgspec.MsgspecError: It is none.
    """
    asked = msgspec.msgpack.decode(body, type=_Question)
    only = {name: frozenset(each) for name, each in asked.only.items()}
    query = Query(
        text=asked.text,
        vector=None if asked.vector is None else np.frombuffer(asked.vector, np.float32),
        filter=Filter(
            frozenset(asked.principals), {name: _inside(each) for name, each in asked.metadata.items()}, **only
        ),
        keyword_depth=asked.keyword_depth,
        vector_depth=asked.vector_depth,
        exact=asked.exact,
        effort=asked.effort,
    )
    return msgspec.msgpack.encode([_told(each) for each in index.search(query)])


class PartitionIndex:
    """Searches one partition of a collection; the other methods of an `Index` are its owner's.

    Args:
        url: Of its owner.
        timeout_s: The longest that it may take.
    """

    def __init__(self, url: str, token: str, collection: str, timeout_s: float = 30.0) -> None:
        self._authority = urlsplit(url).netloc
        self._path = f"/collections/{quote(collection, safe='')}/index"
        self._headers = {"authorization": f"Bearer {token}", "content-type": "application/msgpack"}
        self._timeout_s = timeout_s
        self._kept = threading.local()

    def search(self, query: Query) -> list[Candidate]:
        """As of an `Index`. A partition that does not know the collection yet has nothing of it.

        Raises:
            IndexUnavailable: It does not answer.
        """
        wanted = query.filter
        named = {"documents": wanted.documents, "passages": getattr(wanted, "passages", None)}
        question = _Question(
            text=query.text,
            vector=None if query.vector is None else np.ascontiguousarray(query.vector, np.float32).tobytes(),
            principals=sorted(wanted.principals),
            metadata={name: _outside(value) for name, value in wanted.metadata.items()},
            only={name: sorted(each) for name, each in named.items() if each is not None},
            keyword_depth=query.keyword_depth,
            vector_depth=query.vector_depth,
            exact=query.exact,
            effort=query.effort,
        )
        body = self._ask("POST", "/search", msgspec.msgpack.encode(question))
        return [] if body is None else [_read(each) for each in msgspec.msgpack.decode(body, type=list[_Candidate])]

    def revision(self) -> str:
        """Another one once anything there has changed. Raises as `search` does."""
        body = self._ask("GET", "/revision", b"")
        return "" if body is None else body.decode()

    def _ask(self, method: str, path: str, body: bytes) -> bytes | None:
        """The answer; None where the collection is not known."""
        status, answer = self._exchange(method, path, body)
        if status == 404:
            return None
        if status != 200:
            raise IndexUnavailable(f"a partition of the documents answered with status {status}", retry_after_s=1)
        return answer

    def _exchange(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        kept: http.client.HTTPConnection | None = getattr(self._kept, "connection", None)
        for connection in (kept, None):
            fresh = connection or http.client.HTTPConnection(self._authority, timeout=self._timeout_s)
            try:
                fresh.request(method, self._path + path, body, self._headers)
                response = fresh.getresponse()
                found = response.read(MAX_ANSWER_BYTES)
            except (OSError, http.client.HTTPException) as error:
                fresh.close()
                self._kept.connection = None
                if connection is None:
                    raise IndexUnavailable("a partition of the documents does not answer", retry_after_s=1) from error
            else:
                self._kept.connection = fresh
                return response.status, found
        raise AssertionError("the second attempt has returned or raised")


def _inside(value: _Range | _OneOf | _Equal) -> Value | tuple[Value, ...] | Between:
    match value:
        case _Range(at_least, at_most):
            return Between(at_least, at_most)
        case _OneOf(values):
            return tuple(values)
        case _Equal(only):
            return only


def _outside(value: Value | tuple[Value, ...] | Between) -> _Range | _OneOf | _Equal:
    if isinstance(value, Between):
        return _Range(value.at_least, value.at_most)
    return _OneOf(list(value)) if isinstance(value, tuple) else _Equal(value)


def _told(found: Candidate) -> _Candidate:
    vector = np.ascontiguousarray(found.vector, np.float32).tobytes()
    return _Candidate(found.passage, found.keyword_score, found.vector_score, vector)


def _read(found: _Candidate) -> Candidate:
    vector: Any = np.frombuffer(found.vector, np.float32)
    return Candidate(found.passage, found.keyword_score, found.vector_score, vector)
