"""Object stores: listing, paging, getting, signing, and what they answer when they do not."""

from __future__ import annotations

import hashlib
import http.server
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from urllib.parse import parse_qs, quote, unquote, urlsplit
from xml.sax.saxutils import escape

import pytest

from parkway.core.errors import Unreadable
from parkway.core.tasks import start_thread
from parkway.retrieval.config import BucketConfig
from parkway.retrieval.ingest.bucket import Bucket
from parkway.retrieval.ingest.pattern import Patterns
from parkway.retrieval.ingest.signature import Credentials, query_string, signed
from parkway.retrieval.ingest.source import Entry, Missing, SourceUnavailable

CREDENTIALS = {"ACCESS": "AKIDEXAMPLE", "SECRET": "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"}


class Store(http.server.ThreadingHTTPServer):
    """As much of an object store as is asked for.

    Attributes:
        objects: By key.
        answers: Statuses and codes that the next requests get instead, in order.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.objects: dict[str, bytes] = {}
        self.answers: list[tuple[int, str]] = []
        self.signed = True
        self.page = 2
        self.asked = 0


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Store  # pyright: ignore[reportIncompatibleVariableOverride]

    def log_message(self, format: str, *_: object) -> None: ...

    def do_GET(self) -> None:
        self.server.asked += 1
        parts = urlsplit(self.path)
        if self.server.answers:
            status, code = self.server.answers.pop(0)
            if status == 0:
                self.close_connection = True
                self.connection.close()
                return
            self.answer(status, f"<Error><Code>{code}</Code></Error>".encode())
            return
        if self.server.signed and not self.allowed(parts.path, parts.query):
            self.answer(403, b"<Error><Code>SignatureDoesNotMatch</Code></Error>")
            return
        parameters = {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        if "list-type" in parameters:
            self.answer(200, self.listing(parameters), "application/xml")
            return
        data = self.server.objects.get(unquote(parts.path).removeprefix("/docs/"))
        if data is None:
            self.answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
        else:
            self.answer(200, data, "application/octet-stream")

    def allowed(self, path: str, query: str) -> bool:
        now = datetime.strptime(self.headers["x-amz-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        wanted = signed(Credentials(*CREDENTIALS.values()), "us-east-1", self.headers["host"], path, query, now)
        return wanted["authorization"] == self.headers["authorization"]

    def listing(self, parameters: dict[str, str]) -> bytes:
        keys = sorted(key for key in self.server.objects if key.startswith(parameters["prefix"]))
        start = int(parameters.get("continuation-token", 0))
        end = start + self.server.page
        found = "".join(
            f"<Contents><Key>{escape(quote(key, safe='/'))}</Key><Size>{len(self.server.objects[key])}</Size>"
            f"<ETag>&quot;{hashlib.md5(self.server.objects[key]).hexdigest()}&quot;</ETag></Contents>"
            for key in keys[start:end]
        )
        more = f"<IsTruncated>true</IsTruncated><NextContinuationToken>{end}</NextContinuationToken>"
        space = "http://s3.amazonaws.com/doc/2006-03-01/"
        return f"<ListBucketResult xmlns='{space}'>{found}{more if end < len(keys) else ''}</ListBucketResult>".encode()

    def answer(self, status: int, body: bytes, media_type: str = "application/xml") -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.send_header("content-type", media_type)
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def store() -> Iterator[Store]:
    server = Store()
    thread: threading.Thread = start_thread(server.serve_forever, name="test/store")
    yield server
    server.shutdown()
    server.server_close()
    thread.join(5)


def bucket(store: Store, patterns: Patterns | None = None, **more: object) -> Bucket:
    config = BucketConfig(
        name="docs",
        endpoint=f"http://127.0.0.1:{store.server_port}",
        access_key_env="ACCESS",
        secret_key_env="SECRET",
        **more,  # pyright: ignore
    )
    return Bucket(config, "s3://docs/", patterns, environment=CREDENTIALS)


def test_the_signature_is_that_of_the_specification() -> None:
    # "Example: GET Bucket (List Objects)" of Amazon's "Signature Calculations for the Authorization Header".
    credentials = Credentials("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
    query = query_string({"max-keys": "2", "prefix": "J"})
    at = datetime(2013, 5, 24, tzinfo=UTC)
    headers = signed(credentials, "us-east-1", "examplebucket.s3.amazonaws.com", "/", query, at)
    assert headers["authorization"].endswith("34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7")


def test_all_pages_are_listed_and_objects_are_read(store: Store) -> None:
    keys = ["a.md", "deep/b c+d.md", "deep/new\nline.md", "deep/ünï.md", "e.txt", "folder/", "100%25.md"]
    store.objects = {key: key.encode() for key in keys}
    source = bucket(store)
    found = [one for one in source.entries() if isinstance(one, Entry)]
    assert sorted(source.read(one.uri, 1000).data.decode() for one in found) == sorted(set(keys) - {"folder/"})
    assert all(one.uri.isprintable() for one in found)
    assert len({one.fingerprint for one in found}) == len(found)
    deep = list(bucket(store, prefix="deep/").entries())
    assert len(deep) == 3
    assert len(list(bucket(store, Patterns(["*.md"], ["deep"])).entries())) == 2
    assert source.read("s3://docs/a.md", 1000).media_type == "", "what servers say by default says nothing"


def test_what_goes_wrong_is_told_apart(store: Store) -> None:
    store.objects = {"a": b"12345"}
    source = bucket(store)
    with pytest.raises(Missing):
        source.read("s3://docs/b", 10)
    with pytest.raises(Unreadable, match="larger than 4 bytes"):
        source.read("s3://docs/a", 4)
    assert source.read("s3://docs/a", 5).data == b"12345"
    for status, code in ((503, "SlowDown"), (500, "InternalError"), (404, "NoSuchBucket"), (301, "PermanentRedirect")):
        store.answers = [(status, code)]
        with pytest.raises(SourceUnavailable, match=f"{status} {code}"):
            source.read("s3://docs/a", 10)
    store.answers = [(403, "AccessDenied")]
    with pytest.raises(Unreadable, match="403 AccessDenied"):
        source.read("s3://docs/a", 10)
    store.answers = [(403, "AccessDenied")]
    with pytest.raises(SourceUnavailable, match="403 AccessDenied"):
        list(source.entries())


def test_a_page_that_does_not_come_is_no_end_of_the_list(store: Store) -> None:
    store.objects = {f"{n}.md": b"x" for n in range(5)}
    found = bucket(store).entries()
    assert isinstance(next(found), Entry)
    next(found)
    store.answers = [(503, "SlowDown")]
    with pytest.raises(SourceUnavailable):
        list(found)


def test_a_connection_that_was_closed_is_made_again(store: Store) -> None:
    store.objects = {"a": b"1"}
    source = bucket(store)
    source.read("s3://docs/a", 10)
    store.answers = [(0, "")]
    assert source.read("s3://docs/a", 10).data == b"1"
    store.shutdown()
    store.server_close()
    with pytest.raises(SourceUnavailable):
        bucket(store).read("s3://docs/a", 10)
