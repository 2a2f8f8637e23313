"""The owner's HTTP server: the library and the search, for the gateways of this installation and for nobody else."""

from __future__ import annotations

import hmac
import logging
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import TypeVar

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from parkway.core import wire
from parkway.core.child_server import ChildServer
from parkway.core.errors import (
    BodyTooLarge,
    IndexDamaged,
    IndexUnavailable,
    InternalError,
    InvalidKey,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    Overloaded,
    ParkwayError,
)
from parkway.core.knowledge import Asked, CollectionList, NewCollection, NewDocument, Removed
from parkway.launch.library import Library, Owned

log = logging.getLogger(__name__)

T = TypeVar("T")

MAX_REQUEST_BYTES = 1 << 20
"""Of a search or of a new collection; documents have a limit of their own."""

MAX_REQUESTS = 256
"""At one moment; one more is refused."""

DRAIN_S = 3


async def serve(
    owned: Owned, listener: socket.socket, token: str, announce: Callable[[], None], max_document_bytes: int
) -> None:
    """Serves until SIGTERM or SIGINT, then finishes what runs, for `DRAIN_S` seconds at most.

    Args:
        listener: Bound. It is listened on from now on: whoever comes before is refused at once.
        announce: Called when the first request would succeed.
    """
    config = uvicorn.Config(
        create_app(owned, token, max_document_bytes),
        lifespan="off", http="httptools", ws="none", access_log=False, log_config=None, server_header=False,
        date_header=False, proxy_headers=False, timeout_keep_alive=600, timeout_graceful_shutdown=DRAIN_S,
    )  # fmt: skip
    await ChildServer(config, announce).serve(sockets=[listener])


def create_app(owned: Owned, token: str, max_document_bytes: int) -> ASGIApp:
    """The routes around what an owner has."""
    searches = SearchRoutes(owned)
    routes = [
        Route("/healthz", searches.alive),
        Route("/collections/{name}/search", searches.search, methods=["POST"]),
        Route("/collections/{name}/index/search", searches.candidates, methods=["POST"]),
        Route("/collections/{name}/index/revision", searches.revision, methods=["GET"]),
        Route("/collections/{name}/replicas/{number:int}/{copy}", searches.copy, methods=["POST"]),
    ]
    if owned.library is not None:
        library = LibraryRoutes(owned.library, max_document_bytes)
        routes += [
            Route("/collections", library.collections),
            Route("/collections/{name}", library.status, methods=["GET"]),
            Route("/collections/{name}", library.add, methods=["PUT"]),
            Route("/collections/{name}", library.remove, methods=["DELETE"]),
            Route("/collections/{name}/documents", library.documents, methods=["GET"]),
            Route("/collections/{name}/document", library.add_document, methods=["PUT"]),
            Route("/collections/{name}/document", library.remove_document, methods=["DELETE"]),
        ]
    return Starlette(
        routes=routes,
        middleware=[Middleware(_Door, token=token)],
        exception_handlers={ParkwayError: _told, HTTPException: _http_error, Exception: _told},
    )


class SearchRoutes:
    """The handlers of searches. They check sizes and types; what is asked for is what the search does."""

    def __init__(self, owned: Owned) -> None:
        self._searching = owned.searching
        self._candidates = owned.candidates
        self._revision = owned.revision
        self._copy = owned.copy

    async def alive(self, _: Request) -> Response:
        return _json({"status": "ok"})

    async def search(self, request: Request) -> Response:
        asked, name = await _body(request, Asked), _name(request)
        try:
            found = await self._searching.search(name, asked.search, frozenset(asked.principals))
        except (IndexUnavailable, IndexDamaged) as error:
            # It names hosts, users and directories, which are no business of who searches.
            log.error("%s cannot be searched: %s", name, error.message)
            told = f"the index of {name} cannot be searched now; the log of its owner says why"
            raise IndexUnavailable(told, retry_after_s=error.retry_after_s) from error
        return _json(found)

    async def candidates(self, request: Request) -> Response:
        """For the owner of another partition."""
        if self._candidates is None:
            raise NotFound("there are no partitions")
        body = b"".join([part async for part in _bounded(request.stream(), MAX_REQUEST_BYTES)])
        return Response(await self._candidates(_name(request), body), media_type="application/msgpack")

    async def revision(self, request: Request) -> Response:
        """Likewise."""
        if self._revision is None:
            raise NotFound("there are no partitions")
        return Response(self._revision(_name(request)))

    async def copy(self, request: Request) -> Response:
        """For a replica of this owner."""
        if self._copy is None:
            raise NotFound("there is nothing to copy here")
        return _json(await self._copy(_name(request), request.path_params["number"], request.path_params["copy"]))


class LibraryRoutes:
    """The handlers of what takes documents in: the same for the library."""

    def __init__(self, library: Library, max_document_bytes: int) -> None:
        self._library = library
        self._max_document_bytes = max_document_bytes

    async def collections(self, request: Request) -> Response:
        return _json(CollectionList(data=await self._library.collections(_principals(request))))

    async def status(self, request: Request) -> Response:
        return _json(await self._library.status(_name(request), _principals(request)))

    async def add(self, request: Request) -> Response:
        return _json(await self._library.add(_name(request), await _body(request, NewCollection)))

    async def remove(self, request: Request) -> Response:
        await self._library.remove(_name(request))
        return _json(Removed(id=_name(request)))

    async def documents(self, request: Request) -> Response:
        query = request.query_params
        limit = int(query.get("limit", "20"))
        after = query.get("after", "")
        return _json(await self._library.documents(_name(request), after, limit, _principals(request)))

    async def add_document(self, request: Request) -> Response:
        new = wire.decode(request.query_params.get("document", "").encode(), NewDocument)
        content = _bounded(request.stream(), self._max_document_bytes)
        try:
            added = await self._library.add_document(_name(request), new, content)
        except ParkwayError:
            # To its end: who still sends when the connection is closed may never see the answer.
            with suppress(ParkwayError):
                async for _ in content:
                    pass
            raise
        return _json(added)

    async def remove_document(self, request: Request) -> Response:
        await self._library.remove_document(_name(request), _uri(request))
        return _json(Removed(id=_uri(request)))


class _Door:
    """Lets in who presents the token, and everybody to /healthz; no more than `MAX_REQUESTS` at one moment."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._expected = f"Bearer {token}".encode()
        self._running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        known = hmac.compare_digest(given, self._expected)
        if scope["path"] != "/healthz" and not known:
            await _refused(InvalidKey("the token is not this owner's"))(scope, receive, send)
        elif self._running >= MAX_REQUESTS:
            error = Overloaded(f"the owner of the documents works on {MAX_REQUESTS} requests", retry_after_s=1)
            await _refused(error)(scope, receive, send)
        else:
            self._running += 1
            try:
                await self._app(scope, receive, send)
            except ClientDisconnect:
                pass  # nobody is there to be told
            finally:
                self._running -= 1


def _name(request: Request) -> str:
    return str(request.path_params["name"])


def _principals(request: Request) -> frozenset[str] | None:
    """Who asks; None: whoever may see all."""
    query = request.query_params
    return frozenset(filter(None, query.getlist("principal"))) if "principal" in query else None


def _uri(request: Request) -> str:
    """From the query: a path could not have every character of it."""
    uri = request.query_params.get("uri", "")
    if not uri:
        raise InvalidRequest("`uri` is missing", param="uri")
    return uri


async def _body(request: Request, cls: type[T]) -> T:
    parts = [part async for part in _bounded(request.stream(), MAX_REQUEST_BYTES)]
    return wire.decode(b"".join(parts), cls)


async def _bounded(stream: AsyncIterator[bytes], most: int) -> AsyncIterator[bytes]:
    """Raises: BodyTooLarge."""
    size = 0
    async for piece in stream:
        size += len(piece)
        if size > most:
            raise BodyTooLarge(f"over {most} bytes")
        if piece:
            yield piece


def _json(value: object, status: int = 200) -> Response:
    return Response(wire.encode(value), status, media_type="application/json")


def _refused(error: ParkwayError) -> Response:
    return Response(wire.encode(error.to_body()), error.status, error.headers(), "application/json")


async def _told(_: Request, error: Exception) -> Response:
    if not isinstance(error, ParkwayError):  # a defect of ours, which uvicorn puts into the log
        error = InternalError("the owner of the documents failed; its log has the details")
    elif error.status >= 500:
        log.error("%s", error.message)
    return _refused(error)


async def _http_error(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    told: ParkwayError = (
        MethodNotAllowed(f"{request.method} is not allowed here")
        if status == MethodNotAllowed.status
        else NotFound("no such path")
    )
    return _refused(told)
