"""A partition that is searched over HTTP finds what its index finds, and says so with the same words."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from parkway.core.errors import IndexUnavailable
from parkway.launch.partition_index import PartitionIndex, answer
from parkway.retrieval.document import Passage
from parkway.retrieval.index.index import Between, Candidate, Filter, Query

VECTOR = np.array([0.6, 0.8], np.float32)
PASSAGE = Passage(
    passage_id="p",
    document_id="d",
    version="v",
    ordinal=0,
    text="Blåbær",
    start=0,
    end=6,
    metadata={"tags": ["a", "b"]},
)


class Asked:
    """An index that keeps what it was asked."""

    def __init__(self) -> None:
        self.queries: list[Query] = []

    def search(self, query: Query) -> list[Candidate]:
        self.queries.append(query)
        return [Candidate(PASSAGE, 1.5, None, VECTOR)]


class Owner(http.server.BaseHTTPRequestHandler):
    """Answers a question of `PartitionIndex`, and closes each second connection without a word."""

    protocol_version = "HTTP/1.1"
    index: Asked
    status = 200
    seen: list[tuple[str, str | None]]
    rude = False

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.seen.append((self.path, self.headers["authorization"]))
        told = answer(self.index, body) if self.status == 200 else b"{}"  # pyright: ignore[reportArgumentType]
        self.send_response(self.status)
        self.send_header("content-length", str(len(told)))
        self.end_headers()
        self.wfile.write(told)
        if self.rude:
            self.close_connection = True

    def do_GET(self) -> None:
        self.seen.append((self.path, self.headers["authorization"]))
        self.send_response(self.status)
        self.send_header("content-length", "3")
        self.end_headers()
        self.wfile.write(b"a.1")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def owner() -> Iterator[tuple[type[Owner], str]]:
    handler = type("Handler", (Owner,), {"index": Asked(), "seen": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield handler, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("rude", [False, True])
def test_a_question_arrives_as_it_was_asked(owner: tuple[type[Owner], str], rude: bool) -> None:
    handler, url = owner
    handler.rude = rude
    metadata = {
        "year": Between(2020, None), "day": Between("2026-01-01", "2026-02-01"), "language": ("en", "de"),
        "draft": False, "pages": 3, "tags": ["a"], "share": 0.5, "name": "x",
    }  # fmt: skip
    wanted = Filter(frozenset({"user:ann", "*"}), metadata, frozenset({"d"}))
    index = PartitionIndex(url, "secret", "a.b-c")
    for query in (
        Query("zwei Wörter", VECTOR, wanted, 7, 9, exact=True, effort=64),
        Query("", None, Filter(frozenset())),
    ):
        [found] = index.search(query)
        assert (found.passage, found.keyword_score, found.vector_score) == (PASSAGE, 1.5, None)
        assert found.vector.tolist() == VECTOR.tolist()
        asked = handler.index.queries[-1]
        assert (asked.text, asked.filter) == (query.text, query.filter)
        assert (asked.keyword_depth, asked.vector_depth) == (query.keyword_depth, query.vector_depth)
        assert (asked.exact, asked.effort) == (query.exact, query.effort)
        assert (asked.vector is None) == (query.vector is None)
    assert set(handler.seen) == {("/collections/a.b-c/index/search", "Bearer secret")}


def test_a_partition_that_does_not_know_the_collection_yet_has_nothing_of_it(owner: tuple[type[Owner], str]) -> None:
    handler, url = owner
    index = PartitionIndex(url, "secret", "new")
    handler.status = 404
    assert index.search(Query("x", None, Filter(frozenset()))) == []
    handler.status = 401
    with pytest.raises(IndexUnavailable, match="status 401"):
        index.search(Query("x", None, Filter(frozenset())))


def test_it_says_whether_it_has_changed(owner: tuple[type[Owner], str]) -> None:
    handler, url = owner
    index = PartitionIndex(url, "secret", "docs")
    assert index.revision() == "a.1"
    assert handler.seen == [("/collections/docs/index/revision", "Bearer secret")]
    handler.status = 404
    assert index.revision() == ""
    handler.status = 503
    with pytest.raises(IndexUnavailable, match="status 503"):
        index.revision()


def test_one_that_is_away_is_an_error_and_not_a_shorter_list(owner: tuple[type[Owner], str]) -> None:
    index = PartitionIndex("http://127.0.0.1:9", "secret", "docs")
    for ask in (lambda: index.search(Query("x", None, Filter(frozenset()))), index.revision):
        with pytest.raises(IndexUnavailable, match="does not answer"):
            ask()
