"""`/v1/knowledge`: collections of documents, what stands in them, and searching them.

Whether there is a collection that the caller may not search is nothing that the caller learns.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass

import msgspec
from starlette.convertors import Convertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import Response

from parkway.core.errors import InvalidRequest, NotAllowed, ParkwayError
from parkway.core.knowledge import (
    CollectionList,
    CollectionRequest,
    DocumentPage,
    Found,
    NewCollection,
    Principal,
    Removed,
    Search,
)
from parkway.core.trace import Trace
from parkway.core.wire import decode
from parkway.gateway.body import headers_of, read_body, stream_body
from parkway.gateway.own import Json, OwnRoutes, integer
from parkway.policy.caller import Caller
from parkway.policy.estimate import BYTES_A_TOKEN, Estimate
from parkway.policy.limiter import Taken
from parkway.policy.rulebook import Party
from parkway.router.knowledge import Knowledge, not_found

MAX_URI_CHARS = 2048
MAX_ACCESS = 64

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_LEASE_MARGIN_S = 60.0


class _UriConvertor(Convertor[str]):
    """The rest of a path, whatever stands in it: names of files may have line breaks."""

    regex = r"[\s\S]+"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("uri", _UriConvertor())


@dataclass(frozen=True, slots=True)
class KnowledgeRoutes:
    """The handlers; `gateway/app.py` gives each its path."""

    own: OwnRoutes

    async def list(self, request: Request) -> Response:
        """The collections that the caller may search."""
        caller = await self.own.caller(request)
        found = await self._knowledge.collections(self._deadline())
        permissions = self.own.parts.permissions
        allowed = set(await permissions.allowed(caller, "search", [each.name for each in found]))
        return Json(CollectionList(data=[each for each in found if each.name in allowed]))

    async def show(self, request: Request) -> Response:
        await self._searcher(request)
        return Json(await self._knowledge.status(_name(request), self._deadline()))

    async def add(self, request: Request) -> Response:
        caller = await self.own.caller(request, administers=True)
        name = request.path_params["name"]
        if _NAME.fullmatch(name) is None:
            raise InvalidRequest(
                f"{name[:64]!r} cannot be the name of a collection; one has 1 to 64 of a-z, 0-9, `.`, `_`, `-`, and "
                "begins with a letter or a digit",
                param="name",
            )
        body = await self._read(request)
        new = decode(body, CollectionRequest) if body else CollectionRequest()
        added = await self._knowledge.add(name, NewCollection(access=new.access), self._deadline())
        self.own.parts.audit.administer("knowledge.add", name, key_id=caller.key_id)
        return Json(added)

    async def remove(self, request: Request) -> Response:
        caller = await self.own.caller(request, administers=True)
        name = _name(request)
        await self._knowledge.remove(name, self._deadline())
        self.own.parts.audit.administer("knowledge.remove", name, key_id=caller.key_id)
        return Json(Removed(id=name))

    async def documents(self, request: Request) -> Response:
        """Those that the caller may see; whoever administers the installation sees all."""
        caller = await self._searcher(request)
        limit = integer(request, "limit", default=20, low=1, high=100)
        after = request.query_params.get("after", "")
        if len(after) > MAX_URI_CHARS:
            raise InvalidRequest("`after` is no URI of a document: it is too long", param="after")
        principals = None if self.own.parts.permissions.allows(caller, "administer") else caller.principals
        page: DocumentPage = await self._knowledge.documents(_name(request), after, limit, principals, self._deadline())
        return Json(page)

    async def add_document(self, request: Request) -> Response:
        """The body is the document, byte by byte; it goes through here without being held."""
        caller = await self.own.caller(request, administers=True)
        name, uri = _name(request), _uri(request)
        access = _access(request)
        limit, timeout_s = self.own.parts.bounds.max_document_bytes, self.own.config.gateway.body_timeout_s
        content = stream_body(headers_of(request.scope), request.receive, limit, timeout_s)
        added = await self._knowledge.add_document(
            name, uri, content, self._deadline(), media_type=request.headers.get("content-type", ""), access=access
        )
        self.own.parts.audit.administer("knowledge.document.add", f"{name}: {uri}", key_id=caller.key_id)
        return Json(added)

    async def remove_document(self, request: Request) -> Response:
        caller = await self.own.caller(request, administers=True)
        name, uri = _name(request), _uri(request)
        await self._knowledge.remove_document(name, uri, self._deadline())
        self.own.parts.audit.administer("knowledge.document.remove", f"{name}: {uri}", key_id=caller.key_id)
        return Json(Removed(id=uri))

    async def search(self, request: Request) -> Response:
        """Costs a request, and the tokens of its query."""
        caller = await self._searcher(request, counted=False)
        parts, deadline = self.own.parts, self._deadline()
        search = await self.own.body(request, Search)
        tokens = -(-len(search.query.encode()) // BYTES_A_TOKEN)
        lease_s = self.own.config.gateway.timeout_s + _LEASE_MARGIN_S
        reservation = await parts.limiter.reserve(Party.of(caller), Estimate(tokens), lease_s)
        used = Taken(0, 0)
        try:
            found = await self._found(request, search, caller, deadline)
            used = Taken(tokens, 0)
        finally:
            parts.limiter.settle(reservation, used)
        headers = {name.decode(): value.decode() for name, value in reservation.headers()}
        return Json(found, headers=headers)

    async def _found(self, request: Request, search: Search, caller: Caller, deadline: float) -> Found:
        trace: Trace = request.scope["state"]["trace"]
        span = trace.begin("search", "client")
        span.attributes["parkway.knowledge"] = _name(request)
        try:
            found = await self._knowledge.search(_name(request), search, caller.principals, deadline)
        except ParkwayError as error:
            span.end(error.code)
            raise
        except BaseException:
            span.end("cancelled")
            raise
        span.attributes["parkway.hits"] = len(found.hits)
        span.attributes |= {f"parkway.{stage}_ms": took for stage, took in found.took_ms.items()}
        span.end()
        return found

    async def _searcher(self, request: Request, *, counted: bool = True) -> Caller:
        """Who asks, and may search the collection in the path.

        Raises:
            CollectionNotFound: The caller may not; or there cannot be one of that name.
        """
        name = request.path_params["name"]
        try:
            caller = await self.own.caller(request, searches=name, counted=counted)
        except NotAllowed:
            raise not_found(name) from None
        _name(request)
        return caller

    @property
    def _knowledge(self) -> Knowledge:
        return self.own.parts.knowledge

    def _deadline(self) -> float:
        return asyncio.get_running_loop().time() + self.own.config.gateway.timeout_s

    async def _read(self, request: Request) -> bytes:
        limit, timeout_s = self.own.parts.bounds.max_body_bytes, self.own.config.gateway.body_timeout_s
        return await read_body(headers_of(request.scope), request.receive, limit, timeout_s)


def _name(request: Request) -> str:
    """The collection in the path. Raises: CollectionNotFound, where none can be called so."""
    name: str = request.path_params["name"]
    if _NAME.fullmatch(name) is None:
        raise not_found(name)
    return name


def _uri(request: Request) -> str:
    uri: str = request.path_params["uri"]
    if len(uri) > MAX_URI_CHARS or "\0" in uri:
        raise InvalidRequest(
            f"{uri[:60]!r} cannot be the URI of a document; one has at most {MAX_URI_CHARS} characters, none of them 0",
            param="uri",
        )
    return uri


def _access(request: Request) -> tuple[str, ...]:
    given = request.query_params.getlist("access")
    try:
        if len(given) > MAX_ACCESS:
            raise msgspec.ValidationError(f"{len(given)} are too many; {MAX_ACCESS} are allowed")
        return tuple(msgspec.convert(given, list[Principal]))
    except msgspec.ValidationError as error:
        raise InvalidRequest(
            f"`access`: {error}; each is `*`, or key:NAME, user:NAME or team:NAME", param="access"
        ) from error
