"""A Qdrant server that fails: a server of our own plays it. What it answers when it is well, the contract tests."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from parkway.core.errors import ConfigurationError, IndexUnavailable
from parkway.core.tasks import start_thread
from parkway.retrieval.index.config import IndexConfig
from parkway.retrieval.index.index import Filter, Query
from parkway.retrieval.index.qdrant import BATCH, QdrantIndex
from tests.retrieval.index.corpus import DIMENSIONS, passage, vectors
from tests.servers import free_port

ANYBODY = Filter(frozenset({"a"}))

COLLECTION = {
    "status": "green",
    "optimizer_status": "ok",
    "segments_count": 1,
    "indexed_vectors_count": 0,
    "points_count": 0,
    "payload_schema": {},
    "config": {
        "params": {"vectors": {"meaning": {"size": DIMENSIONS, "distance": "Cosine"}}},
        "hnsw_config": {"m": 16, "ef_construct": 100, "full_scan_threshold": 10000},
        "optimizer_config": {
            "deleted_threshold": 0.2,
            "vacuum_min_vector_number": 1000,
            "default_segment_number": 0,
            "flush_interval_sec": 5,
        },
        "metadata": {"parkway_language": "english"},
    },
}

Answer = tuple[int, Any]


class FakeQdrant:
    """Answers as Qdrant does, or as it is told; keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, Any, str | None]] = []
        self.instead: Callable[[str, str], Answer | None] = lambda method, path: None
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                length = int(self.headers.get("content-length") or 0)
                body = json.loads(self.rfile.read(length)) if length else None
                path = self.path.split("?")[0]
                fake.asked.append((self.command, path, body, self.headers.get("api-key")))
                status, result = fake.instead(self.command, path) or fake.usual(self.command, path, body)
                if status == 0:
                    self.connection.close()
                    return
                whole = {"result": result, "status": "ok", "time": 0.0}
                said = result if isinstance(result, bytes) else json.dumps(whole).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(said)))
                self.end_headers()
                self.wfile.write(said)

            do_GET = do_PUT = do_POST = do_DELETE = answer

            def log_message(self, *_: object) -> None:
                """Nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True  # one that is stuck keeps nobody waiting
        self.server.block_on_close = False
        start_thread(lambda: self.server.serve_forever(0.01), name="test/qdrant")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def usual(self, method: str, path: str, body: Any) -> Answer:
        if path.endswith("/exists"):
            return 200, {"exists": True}
        if path.endswith("/points/query/batch"):
            return 200, [{"points": []} for _ in body["searches"]]
        if path.endswith("/points/count"):
            return 200, {"count": 0}
        if (method, path) == ("PUT", "/collections/c"):
            return 200, True
        if method == "GET":
            return 200, COLLECTION
        return 200, {"operation_id": 1, "status": "completed"}


@pytest.fixture
def server() -> Iterator[FakeQdrant]:
    fake = FakeQdrant()
    yield fake
    fake.server.shutdown()
    fake.server.server_close()


@pytest.fixture
def index(server: FakeQdrant, monkeypatch: pytest.MonkeyPatch) -> Iterator[QdrantIndex]:
    monkeypatch.setenv("QDRANT_KEY", "secret")
    config = IndexConfig(store="qdrant", url=server.url, api_key_env="QDRANT_KEY", timeout_s=1)
    index = QdrantIndex.connect(config, "c", DIMENSIONS)
    yield index
    index.close()


def test_nobody_answers() -> None:
    config = IndexConfig(store="qdrant", url=f"http://127.0.0.1:{free_port()}", timeout_s=1)
    with pytest.raises(IndexUnavailable, match="Qdrant does not answer"):
        QdrantIndex.connect(config, "c", DIMENSIONS)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((500, b'{"status":{"error":"disk is full"}}'), "status 500.*disk is full"),
        ((401, b"Invalid API key"), "status 401"),
        ((0, None), "does not answer"),
        ((200, b"<html>a proxy"), "does not answer"),
        ((200, b'{"result": [1'), "does not answer"),
    ],
)
def test_what_is_no_answer_is_an_error_that_says_so(
    server: FakeQdrant, index: QdrantIndex, answer: Answer, words: str
) -> None:
    server.instead = lambda method, path: answer
    calls: list[Callable[[], object]] = [
        lambda: index.search(Query("x", vectors(1)[0], ANYBODY)),
        lambda: index.upsert([passage(1)], vectors(1)),
        lambda: index.remove("d1"),
        lambda: index.documents(),
        lambda: index.passages("d1"),
        lambda: index.vectors(["x"]),
        lambda: index.size(),
        lambda: index.optimise(),
    ]
    for call in calls:
        with pytest.raises(IndexUnavailable, match=words) as raised:
            call()
        assert "secret" not in str(raised.value)


def test_an_answer_that_never_comes_ends(server: FakeQdrant, index: QdrantIndex) -> None:
    stuck = threading.Event()

    def wait(method: str, path: str) -> None:
        stuck.wait(10)

    server.instead = wait
    with pytest.raises(IndexUnavailable, match="does not answer"):
        index.search(Query("x", None, ANYBODY))
    stuck.set()


def test_another_encoder_is_a_mistake(server: FakeQdrant, index: QdrantIndex) -> None:
    config = IndexConfig(store="qdrant", url=server.url)
    with pytest.raises(ConfigurationError, match=f"dimensions {DIMENSIONS}, the configuration says 99"):
        QdrantIndex.connect(config, "c", 99)


def test_what_it_is_asked(server: FakeQdrant, index: QdrantIndex) -> None:
    """Access is part of every search, writes are waited for, and large ones are several."""
    index.search(Query("words", vectors(1)[0], ANYBODY))
    (search,) = [body for _, path, body, _ in server.asked if path.endswith("/points/query/batch")]
    assert len(search["searches"]) == 2
    for one in search["searches"]:
        assert [condition["key"] for condition in one["filter"]["must"]] == ["access"]
        assert len(one["filter"]["must"][0]["match"]["any"]) == 2
    server.asked.clear()
    index.upsert([passage(number) for number in range(BATCH + 1)], vectors(BATCH + 1))
    sizes = [len(body["points"]) for _, path, body, _ in server.asked if path == "/collections/c/points"]
    assert sizes == [BATCH, 1]
    assert {key for *_, key in server.asked} == {"secret"}


def test_a_collection_is_made_as_configured(server: FakeQdrant) -> None:
    server.instead = lambda method, path: (200, {"exists": False}) if path.endswith("/exists") else None
    QdrantIndex.connect(IndexConfig(store="qdrant", url=server.url, m=24, ef_construct=77), "c", DIMENSIONS).close()
    (made,) = [body for method, path, body, _ in server.asked if (method, path) == ("PUT", "/collections/c")]
    assert made["vectors"]["meaning"] == {"size": DIMENSIONS, "distance": "Cosine", "on_disk": True}
    assert made["sparse_vectors"]["words"]["modifier"] == "idf"
    assert made["hnsw_config"] == {"m": 24, "ef_construct": 77, "on_disk": False}
    assert made["quantization_config"]["scalar"]["type"] == "int8"
    indexed = [body["field_name"] for _, path, body, _ in server.asked if path == "/collections/c/index"]
    assert indexed == ["access", "facts", "document", "content", "edition"]
