"""A bucket of an object store that speaks S3: two calls of it, listing and getting, need no library."""

from __future__ import annotations

import http.client
import os
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from urllib.parse import quote, unquote, unquote_plus, urlsplit
from xml.etree import ElementTree

from parkway.core.errors import Unreadable
from parkway.retrieval.config import BucketConfig
from parkway.retrieval.document import Value
from parkway.retrieval.ingest.pattern import Patterns
from parkway.retrieval.ingest.signature import Credentials, query_string, signed
from parkway.retrieval.ingest.source import MAX_URI, Away, Content, Entry, Missing, SourceUnavailable, Unknown

_MAX_LISTING = 16 << 20  # bytes of a page of 1,000 keys
_MAX_PAGES = 1_000_000


class Bucket:
    """A `Source` of objects. Its uris are `s3://BUCKET/KEY`, percent-encoded."""

    def __init__(
        self,
        config: BucketConfig,
        name: str,
        patterns: Patterns | None = None,
        access: tuple[str, ...] | None = None,
        metadata: Mapping[str, Value] | None = None,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        """Connects to nothing yet."""
        self.name = name
        self._config = config
        self._patterns = patterns or Patterns()
        self._access = access
        self._metadata = dict(metadata or {})
        self._endpoint = urlsplit(config.endpoint or f"https://s3.{config.region}.amazonaws.com")
        self._credentials = _credentials(config, environment)
        self._local = threading.local()

    def entries(self) -> Iterator[Entry | Unknown]:
        token = ""
        for _ in range(_MAX_PAGES):
            parameters = {"list-type": "2", "encoding-type": "url", "max-keys": "1000", "prefix": self._config.prefix}
            if token:
                parameters["continuation-token"] = token
            page = self._listing(self._get("", parameters, _MAX_LISTING)[0])
            for found in page.iterfind("{*}Contents"):
                if (entry := self._entry(found)) is not None:
                    yield entry
            if page.findtext("{*}IsTruncated") != "true":
                return
            following = page.findtext("{*}NextContinuationToken") or ""
            if following in ("", token):
                raise SourceUnavailable(f"{self.name}: the list of objects goes on, and does not say where")
            token = following

    def read(self, uri: str, most: int) -> Content:
        key = unquote(uri.removeprefix(f"s3://{self._config.name}/"))
        data, media_type = self._get(key, {}, most)
        # What servers say of objects that nobody described says nothing.
        media_type = "" if media_type.startswith(("application/octet-stream", "binary/")) else media_type
        return Content(data, key.rsplit("/", 1)[-1], media_type)

    def _entry(self, found: ElementTree.Element) -> Entry | None:
        key = unquote_plus(found.findtext("{*}Key") or "")
        if not key or key.endswith("/") or not self._patterns.take(key.removeprefix(self._config.prefix).strip("/")):
            return None
        size = found.findtext("{*}Size") or "0"
        fingerprint = f"{found.findtext('{*}ETag') or ''}-{size}-{found.findtext('{*}LastModified') or ''}"
        uri = f"s3://{self._config.name}/{quote(key)}"
        return Entry(
            uri[:MAX_URI],
            fingerprint,
            bytes=int(size) if size.isdecimal() else 0,
            access=self._access,
            metadata=self._metadata,
            refused=f"has a key of more than {MAX_URI:,} characters" if len(uri) > MAX_URI else "",
        )

    def _listing(self, data: bytes) -> ElementTree.Element:
        try:
            # expat bounds what entities may grow to, and nothing outside is fetched.
            return ElementTree.fromstring(data)  # noqa: S314
        except ElementTree.ParseError as error:
            raise SourceUnavailable(f"{self.name}: the list of objects is not XML: {error}") from error

    def _get(self, key: str, parameters: Mapping[str, str], most: int) -> tuple[bytes, str]:
        """An answer's body and its media type."""
        path = f"/{self._config.name}" + (f"/{quote(key, safe='/-_.~')}" if key else "")
        query = query_string(parameters)
        host = self._endpoint.netloc
        headers = {"host": host}
        if self._credentials is not None:
            headers = signed(self._credentials, self._config.region, host, path, query, datetime.now(UTC))
        try:
            answer = self._ask(f"{path}?{query}" if query else path, headers)
            declared = int(answer.getheader("content-length") or 0)
            if answer.status != 200:
                self._refuse(answer, key)
            data = answer.read(most + 1) if declared <= most else b""
            if declared > most or len(data) > most:
                self._drop()
                if not key:
                    raise SourceUnavailable(f"{self.name}: the list of objects is too long")
                raise Unreadable(f"is larger than {most:,} bytes; `parsing.max_bytes` sets the limit")
            if len(data) < declared:
                raise http.client.IncompleteRead(data)
        except (OSError, http.client.HTTPException, ValueError) as error:
            self._drop()
            kind = Away if isinstance(error, OSError) else SourceUnavailable
            raise kind(f"{self.name}: {type(error).__name__}: {error}") from error
        return data, answer.getheader("content-type") or ""

    def _refuse(self, answer: http.client.HTTPResponse, key: str) -> None:
        body = answer.read(65_536).decode("utf-8", "replace")
        self._drop()
        code = body.split("<Code>", 1)[-1].split("</Code>", 1)[0][:100] if "<Code>" in body else ""
        said = f"{answer.status} {code}".strip()
        if answer.status == 404 and key and code != "NoSuchBucket":
            raise Missing(f"{key}: {said}")
        if answer.status == 403 and key and code not in ("RequestTimeTooSkewed", "ExpiredToken", "InvalidAccessKeyId"):
            raise Unreadable(f"may not be read: {said}")
        raise SourceUnavailable(f"{self.name}: the object store answered {said}")

    def _ask(self, target: str, headers: dict[str, str]) -> http.client.HTTPResponse:
        """Asks on this thread's connection, and once more on a new one: servers close those that were quiet."""
        for _ in range(2):
            kept = getattr(self._local, "connection", None)
            connection: http.client.HTTPConnection = kept or self._connect()
            try:
                connection.request("GET", target, headers=headers)
                answer = connection.getresponse()
                self._local.connection = connection
                return answer
            except (ConnectionError, http.client.RemoteDisconnected):
                self._drop()
                connection.close()
                if kept is None:
                    raise
        raise ConnectionError("the connection was closed twice")

    def _connect(self) -> http.client.HTTPConnection:
        host, port = self._endpoint.hostname or "", self._endpoint.port
        if self._endpoint.scheme == "http":
            return http.client.HTTPConnection(host, port, timeout=self._config.timeout_s)
        context = ssl.create_default_context()
        return http.client.HTTPSConnection(host, port, timeout=self._config.timeout_s, context=context)

    def _drop(self) -> None:
        with suppress(AttributeError):
            self._local.connection.close()
            del self._local.connection


def _credentials(config: BucketConfig, environment: Mapping[str, str]) -> Credentials | None:
    if config.access_key_env is None or config.secret_key_env is None:
        return None
    token = environment.get(config.token_env, "") if config.token_env else ""
    return Credentials(environment.get(config.access_key_env, ""), environment.get(config.secret_key_env, ""), token)
