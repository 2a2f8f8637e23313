"""Asking the owner of the documents: the one process that has their index open, over HTTP on this machine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from parkway.core.errors import (
    CollectionNotFound,
    DeadlineExceeded,
    DocumentNotFound,
    KnowledgeUnavailable,
    ParkwayError,
    RelayedError,
)
from parkway.core.knowledge import (
    Asked,
    CollectionList,
    CollectionStatus,
    DocumentPage,
    DocumentStatus,
    Found,
    NewCollection,
    NewDocument,
    Search,
    can_be_name,
)
from parkway.core.wire import encode
from parkway.router.connection import Broken, Late
from parkway.router.connections import Connections, Origin, Unreachable

T = TypeVar("T")

MAX_ANSWER_BYTES = 64 << 20
SEARCH_S = 60.0
_RETRY_AFTER_S = 1.0
_ONE_OF_SEVERAL_S = 2.0
"""One that takes longer is as good as none, where there are others."""

_UPLOAD_LINE_BYTES = 64 * 1024
_UNKNOWN_LENGTH = "transfer-encoding: chunked\r\nconnection: close\r\n"
_TOLD: Mapping[str, type[ParkwayError]] = {
    each.code: each for each in (CollectionNotFound, DocumentNotFound, KnowledgeUnavailable)
}


class _Error(msgspec.Struct):
    message: str = "no reason given"
    type: str = "server_error"
    code: str = "unknown"
    param: str | None = None


class _Refusal(msgspec.Struct):
    error: _Error = msgspec.field(default_factory=_Error)


@dataclass(slots=True)
class _Place:
    """The owner or a replica, with what is asked of it. Entered for as long as a search runs there.

    Attributes:
        running, asked: Searches, now and so far.
        rests_until: It could not answer: nobody asks it before; on the loop's clock.
    """

    origin: Origin
    running: int = 0
    asked: int = 0
    rests_until: float = 0.0

    def __enter__(self) -> None:
        self.running += 1
        self.asked += 1

    def __exit__(self, *_: object) -> None:
        self.running -= 1


class Knowledge:
    """The collections of this installation.

    Every question may be asked twice: an owner that was started again has closed its connections. All of them say what
    shall be, so that nothing is done twice.

    Args:
        urls: `http://HOST:PORT` of the owner, and of its replicas; empty where there never is one.
        token: What it asks of its clients.
        expected: Whether there is anything that an owner should be running for. Without, there are no collections.
        start: Has an owner started, and returns once it serves.
    """

    def __init__(
        self,
        connections: Connections,
        urls: Sequence[str],
        token: str,
        *,
        expected: Callable[[], bool] = lambda: True,
        start: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._connections = connections
        self._places = [_Place(Origin.of(url)) for url in urls]
        self._origin = self._places[0].origin if self._places else None
        self._token = token
        self._expected = expected
        self._start = start
        self._seen = False

    async def collections(self, principals: frozenset[str] | None, deadline: float) -> list[CollectionStatus]:
        """All collections, by name.

        Args:
            principals: Of documents only those are counted that they may see; None: all.
            deadline: Of this and of every question here: on the loop's clock.

        Raises, all of them:
            KnowledgeUnavailable: The owner does not answer.
            DeadlineExceeded: Not in time.
        """
        if not self._owned:
            return []
        return (await self._ask("GET", f"/collections?{_seen_by(principals)}", CollectionList, deadline)).data

    async def status(self, collection: str, principals: frozenset[str] | None, deadline: float) -> CollectionStatus:
        """One of them, likewise. Raises: CollectionNotFound."""
        self._check(collection)
        return await self._ask("GET", f"{_path(collection)}?{_seen_by(principals)}", CollectionStatus, deadline)

    async def add(self, collection: str, new: NewCollection, deadline: float) -> CollectionStatus:
        """Makes a collection, or adds to it. Its sources have been looked through when this returns."""
        if self._start is not None and not await self._answers():
            await self._start()
        return await self._ask("PUT", _path(collection), CollectionStatus, deadline, encode(new))

    async def remove(self, collection: str, deadline: float) -> None:
        """Removes a collection with all that is kept of its documents. Raises: CollectionNotFound."""
        self._check(collection)
        await self._ask("DELETE", _path(collection), None, deadline)

    def has(self, collection: str) -> bool:
        """Whether there may be such a collection, as far as is known without asking: only its owner knows each."""
        return self._owned and can_be_name(collection)  # of a name that is none the path would be another

    async def search(
        self, collection: str, search: Search, principals: Collection[str], deadline: float | None = None
    ) -> Found:
        """What is found by those who are called one of `principals`.

        Owner and replicas share the searches. Where one cannot answer the next one is asked, at last the owner.

        Args:
            deadline: None: in `SEARCH_S` seconds.

        Raises:
            CollectionNotFound: There is none.
        """
        self._check(collection)
        if deadline is None:
            deadline = asyncio.get_running_loop().time() + SEARCH_S
        path, body = _path(collection, "/search"), encode(Asked(search, sorted(principals)))
        replicated = self._places if len(self._places) > 1 else []
        for place in sorted(replicated, key=lambda place: (place.running, place.asked)):
            if (found := await self._of_one(place, path, body, deadline)) is not None:
                return found
        return await self._ask("POST", path, Found, deadline, body)

    async def documents(
        self, collection: str, after: str, limit: int, principals: frozenset[str] | None, deadline: float
    ) -> DocumentPage:
        """Documents in the order of their ids, from the one after `after`.

        Args:
            principals: Only what they may see; None: all.

        Raises:
            CollectionNotFound: There is none.
        """
        self._check(collection)
        query = f"{urlencode({'after': after, 'limit': limit})}&{_seen_by(principals)}"
        return await self._ask("GET", f"{_path(collection, '/documents')}?{query}", DocumentPage, deadline)

    async def remove_document(self, collection: str, uri: str, deadline: float) -> None:
        """Raises: CollectionNotFound, DocumentNotFound."""
        self._check(collection)
        await self._ask("DELETE", _path(collection, f"/document?{urlencode({'uri': uri})}"), None, deadline)

    async def add_document(
        self, collection: str, new: NewDocument, content: AsyncIterator[bytes], deadline: float
    ) -> DocumentStatus:
        """Sends a document, piece by piece as it comes: it is safe when this returns, and findable a moment later.

        Raises:
            CollectionNotFound: There is none.
        """
        self._check(collection)
        query = urlencode({"document": encode(new)})
        head = self._head("PUT", _path(collection, f"/document?{query}"), _UNKNOWN_LENGTH, self._origin)
        try:
            async with asyncio.timeout_at(deadline):
                status, body = await self._upload(head + b"\r\n", content)
        except TimeoutError as error:
            raise _late() from error
        return _read(status, body, DocumentStatus)

    async def _of_one(self, place: _Place, path: str, body: bytes, deadline: float) -> Found | None:
        """What the owner or a replica finds; None if it cannot tell, and then it is left alone for a moment."""
        now = asyncio.get_running_loop().time
        if place.rests_until > now():
            return None
        try:
            with place:
                return await self._ask(
                    "POST", path, Found, min(deadline, now() + _ONE_OF_SEVERAL_S), body, place.origin
                )
        except ParkwayError as error:
            # What one says of the question all say; but a replica may not know yet that there is such a collection.
            unknown = isinstance(error, CollectionNotFound) and place.origin != self._origin
            if error.status < 500 and not unknown:
                raise
        place.rests_until = now() + _RETRY_AFTER_S
        return None

    @property
    def _owned(self) -> bool:
        self._seen = self._seen or (self._origin is not None and self._expected())
        return self._seen

    def _check(self, collection: str) -> None:
        if not self.has(collection):
            raise not_found(collection)

    async def _answers(self) -> bool:
        """Whether an owner serves."""
        try:
            await self._ask("GET", "/healthz", None, asyncio.get_running_loop().time() + 1.0)
        except (KnowledgeUnavailable, DeadlineExceeded):
            return False
        return True

    async def _ask(
        self, method: str, path: str, cls: type[T] | None, deadline: float, body: bytes = b"", at: Origin | None = None
    ) -> T:
        """Asks the owner, or the replica `at` a place."""
        at = at or self._origin
        head = self._head(method, path, "content-type: application/json\r\n", at)
        request = b"%bcontent-length: %d\r\n\r\n%b" % (head, len(body), body)
        try:
            return _read(*await self._exchange(request, deadline, at), cls)
        except Broken:
            pass  # it was started again in between; or its answer broke off, which asking once more shows
        try:
            return _read(*await self._exchange(request, deadline, at), cls)
        except Broken as error:
            raise _away() from error

    async def _exchange(self, request: bytes, deadline: float, at: Origin | None) -> tuple[int, bytes]:
        if at is None:
            raise _away()
        try:
            answer = await self._connections.ask(at, request, deadline)
            try:
                parts: list[bytes] = []
                size = 0
                while part := await answer.read():
                    size += len(part)
                    if size > MAX_ANSWER_BYTES:
                        raise _away()
                    parts.append(part)
                return answer.status, b"".join(parts)
            finally:
                answer.close()
        except Unreachable as error:
            raise _away() from error
        except Late as error:
            raise _late() from error

    async def _upload(self, head: bytes, content: AsyncIterator[bytes]) -> tuple[int, bytes]:
        """A connection of its own: what is sent is not in memory, and cannot be sent again."""
        if self._origin is None:
            raise _away()
        try:
            reader, writer = await asyncio.open_connection(
                self._origin.host, self._origin.port, limit=_UPLOAD_LINE_BYTES
            )
        except OSError as error:
            raise _away() from error
        try:
            writer.write(head)
            async for piece in content:
                if piece:
                    writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                    await writer.drain()
            writer.write(b"0\r\n\r\n")
            await writer.drain()
            answer = await reader.read(MAX_ANSWER_BYTES)
            while more := await reader.read(MAX_ANSWER_BYTES):
                answer += more
                if len(answer) > MAX_ANSWER_BYTES:
                    raise _away()
        except OSError as error:
            raise _away() from error
        finally:
            writer.transport.abort()
        head_bytes, _, body = answer.partition(b"\r\n\r\n")
        words = head_bytes.split(b" ", 2)
        if len(words) < 2 or not words[1].isdigit():
            raise _away()
        return int(words[1]), body

    def _head(self, method: str, path: str, more: str, at: Origin | None) -> bytes:
        authority = "" if at is None else at.authority
        lines = f"{method} {path} HTTP/1.1\r\nhost: {authority}\r\nauthorization: Bearer {self._token}\r\n{more}"
        return lines.encode("ascii")


def not_found(collection: str) -> CollectionNotFound:
    """The one error for a collection that is not there and for one that the caller may not search."""
    return CollectionNotFound(
        f'collection "{collection[:64]}" does not exist, or you may not search it; GET /v1/knowledge lists yours',
        param="knowledge",
    )


def _seen_by(principals: frozenset[str] | None) -> str:
    """Of a query: who asks, also where that is nobody; None: whoever may see all."""
    return "" if principals is None else urlencode([("principal", each) for each in ("", *sorted(principals))])


def _path(collection: str, rest: str = "") -> str:
    return f"/collections/{quote(collection, safe='')}{rest}"


def _read(status: int, body: bytes, cls: type[Any] | None) -> Any:
    if status >= 400:
        raise _refusal(status, body)
    if cls is None:
        return None
    try:
        return msgspec.json.decode(body, type=cls)
    except msgspec.MsgspecError as error:
        raise _away() from error


def _refusal(status: int, body: bytes) -> ParkwayError:
    try:
        error = msgspec.json.decode(body, type=_Refusal).error
    except msgspec.MsgspecError:
        return _away()
    if (told := _TOLD.get(error.code)) is not None:
        return told(error.message, param=error.param)
    return RelayedError(error.message, status=status, type=error.type, code=error.code, param=error.param)


def _away() -> KnowledgeUnavailable:
    return KnowledgeUnavailable(
        "the owner of the documents does not answer now; try again in a moment", retry_after_s=_RETRY_AFTER_S
    )


def _late() -> DeadlineExceeded:
    return DeadlineExceeded("the owner of the documents did not answer in time; set by gateway.timeout_s")


def places_of(given: str) -> list[list[str]]:
    """The addresses of each partition as an environment variable has them: of its owner, then of its replicas."""
    partitions = ([url for url in part.split("|") if urlsplit(url).hostname] for part in given.split(","))
    return [urls for urls in partitions if urls]
