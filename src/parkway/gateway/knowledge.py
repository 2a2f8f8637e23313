"""`/v1/knowledge`: collections of documents, what stands in them, and searching them.

Whether there is a collection that the caller may not search is nothing that the caller learns.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import msgspec
from starlette.convertors import Convertor, register_url_convertor
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from parkway.core.errors import InternalError, InvalidRequest, NotAllowed, ParkwayError
from parkway.core.knowledge import (
    CollectionList,
    CollectionRequest,
    CollectionStatus,
    Found,
    Metadata,
    NewCollection,
    NewDocument,
    Principal,
    Removed,
    Search,
    Value,
    can_be_name,
    checked_name,
)
from parkway.core.trace import Trace
from parkway.core.wire import decode
from parkway.feedback.record import CANCELLED, OK, SEARCH, RequestRecord, SearchRecord
from parkway.gateway.body import headers_of, read_body, stream_body
from parkway.gateway.own import Json, OwnRoutes, integer
from parkway.policy.caller import Caller
from parkway.policy.estimate import BYTES_A_TOKEN, Estimate
from parkway.policy.limiter import Taken
from parkway.policy.rulebook import Party
from parkway.router.knowledge import Knowledge, not_found

MAX_URI_CHARS = 2048
MAX_ACCESS = 64

_MAX_TYPE_CHARS = 200
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
        found = await self._knowledge.collections(self._sees(caller), self._deadline())
        permissions = self.own.parts.permissions
        allowed = set(await permissions.allowed(caller, "search", [each.name for each in found]))
        return Json(CollectionList(data=[self._shown(each, caller) for each in found if each.name in allowed]))

    async def show(self, request: Request) -> Response:
        caller = await self._searcher(request)
        status = await self._knowledge.status(_name(request), self._sees(caller), self._deadline())
        return Json(self._shown(status, caller))

    async def add(self, request: Request) -> Response:
        caller = await self.own.caller(request, administers=True)
        try:
            name = checked_name(request.path_params["name"])
        except ValueError as error:
            raise InvalidRequest(str(error), param="name") from None
        body = await self._read(request)
        access = decode(body, CollectionRequest).access if body else None
        added = await self._knowledge.add(name, NewCollection(access=access), self._deadline())
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
        if after and not after.isalnum():
            raise InvalidRequest(f"`after`: {after[:60]!r} is no id of a document", param="after")
        sees = self._sees(caller)
        page = await self._knowledge.documents(_name(request), after, limit, sees, self._deadline())
        if sees is not None:
            # Why one waits may name the place that it comes from; of one that is there it says what cannot be found.
            page.data = [
                each if each.state == "indexed" else msgspec.structs.replace(each, reason="") for each in page.data
            ]
        return Json(page)

    async def add_document(self, request: Request) -> Response:
        """The body is the document, byte by byte; it goes through here without being held."""
        caller = await self.own.caller(request, administers=True)
        name, uri = _name(request), _uri(request)
        new = NewDocument(
            uri=uri,
            media_type=request.headers.get("content-type", "")[:_MAX_TYPE_CHARS],
            access=_access(request),
            metadata=_metadata(request),
        )
        limit, timeout_s = self.own.parts.bounds.max_document_bytes, self.own.config.gateway.body_timeout_s
        content = stream_body(headers_of(request.scope), request.receive, limit, timeout_s)
        added = await self._knowledge.add_document(name, new, content, self._deadline())
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
        found: Found | None = None
        status, outcome, tokens = InternalError.status, InternalError.code, 0
        try:
            search = await self.own.body(request, Search)
            tokens = -(-len(search.query.encode()) // BYTES_A_TOKEN)
            lease_s = self.own.config.gateway.timeout_s + _LEASE_MARGIN_S
            reservation = await parts.limiter.reserve(Party.of(caller), Estimate(tokens), lease_s)
            try:
                found = await self._found(request, search, caller, deadline)
            finally:
                parts.limiter.settle(reservation, Taken(tokens if found is not None else 0, 0))
            status, outcome = 200, OK
        except ParkwayError as error:
            status, outcome = error.status, error.code
            raise
        except (asyncio.CancelledError, ClientDisconnect):
            status, outcome = 499, CANCELLED
            raise
        finally:
            self._record(request, caller, found, status, outcome, tokens)
        headers = {name.decode(): value.decode() for name, value in reservation.headers()}
        return Json(found, headers=headers)

    def _record(
        self, request: Request, caller: Caller, found: Found | None, status: int, outcome: str, tokens: int
    ) -> None:
        """What is kept of a search: as of a request to a model."""
        parts, trace, name = self.own.parts, self._trace(request), _name(request)
        total_ms = (time.monotonic() - trace.root.started) * 1000
        parts.metrics.searched(SEARCH, outcome, [found] if found is not None else [])
        parts.log.append(
            RequestRecord(
                request_id=request.scope["state"]["request_id"],
                key_id=caller.key_id,
                surface=SEARCH,
                model=f"knowledge/{name}",
                stream=False,
                status=status,
                outcome=outcome,
                prompt_tokens=tokens if found is not None else None,
                total_ms=total_ms,
                started_ms=time.time_ns() // 1_000_000 - int(total_ms),
                user=caller.user,
                team=caller.team,
                trace_id=trace.trace_id,
                search=SearchRecord.of([name], [found]).text() if found is not None else None,
            )
        )

    async def _found(self, request: Request, search: Search, caller: Caller, deadline: float) -> Found:
        span = self._trace(request).begin("search", "client")
        span.attributes["parkway.knowledge"] = _name(request)
        try:
            found = await self._knowledge.search(_name(request), search, caller.principals, deadline)
        except ParkwayError as error:
            span.end(error.code)
            raise
        except BaseException:
            span.end("cancelled")
            raise
        span.attributes |= {"parkway.hits": len(found.hits), "parkway.cached": found.cached}
        span.attributes |= {f"parkway.{stage}_ms": took for stage, took in found.took_ms.items()}
        span.end()
        return found

    @staticmethod
    def _trace(request: Request) -> Trace:
        return request.scope["state"]["trace"]

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

    def _sees(self, caller: Caller) -> frozenset[str] | None:
        """Whose documents the caller is told of; None: who administers the installation is told of all."""
        return None if self.own.parts.permissions.allows(caller, "administer") else caller.principals

    def _shown(self, status: CollectionStatus, caller: Caller) -> CollectionStatus:
        """Where the documents lie is for those alone who administer the installation."""
        if self._sees(caller) is None:
            return status
        return msgspec.structs.replace(status, sources=[], trouble=[])

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
    if not can_be_name(name):
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


def _metadata(request: Request) -> dict[str, Value]:
    given = request.query_params.get("metadata", "{}")
    try:
        return msgspec.json.decode(given, type=Metadata)
    except msgspec.MsgspecError as error:
        raise InvalidRequest(
            f"`metadata`: {error}; it is a JSON object of texts, numbers, booleans and lists of texts", param="metadata"
        ) from error


def _access(request: Request) -> list[str]:
    given = request.query_params.getlist("access")
    try:
        if len(given) > MAX_ACCESS:
            raise msgspec.ValidationError(f"{len(given)} are too many; {MAX_ACCESS} are allowed")
        return msgspec.convert(given, list[Principal])
    except msgspec.ValidationError as error:
        raise InvalidRequest(
            f"`access`: {error}; each is `*`, or key:NAME, user:NAME or team:NAME", param="access"
        ) from error
