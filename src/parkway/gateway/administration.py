"""`/v1/audit` and `/v1/cache`: what only administrators see and do."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from parkway.aggregate.response_cache import generations
from parkway.core.errors import InvalidRequest
from parkway.gateway.own import Json, OwnRoutes, integer
from parkway.policy.chain import Entry, decode_entry, page
from parkway.store.sql import Database

_LATEST_MS = 2**53
_MAX_MODEL_CHARS = 256


class AuditPage(msgspec.Struct, kw_only=True):
    """Entries of the audit log, oldest first; the next page comes after the sequence of the last."""

    data: list[Entry]
    has_more: bool
    object: str = "list"


class Cleared(msgspec.Struct, kw_only=True):
    """`model` is whose answers were cleared; null: everybody's."""

    model: str | None
    cleared: bool = True


@dataclass(frozen=True, slots=True)
class AdministrationRoutes:
    """The handlers; `gateway/app.py` gives each its path."""

    own: OwnRoutes
    database: Database

    async def list_audit(self, request: Request) -> Response:
        await self.own.caller(request, administers=True)
        limit = integer(request, "limit", default=20, low=1, high=100)
        after = integer(request, "after", default=-1, low=-1, high=2**53)
        since_ms = integer(request, "since_ms", default=0, low=0, high=_LATEST_MS)
        found = await self.database.run(lambda connection: page(connection, after, since_ms, limit + 1), write=False)
        entries = [decode_entry(link.entry) for link in found[:limit]]
        return Json(AuditPage(data=entries, has_more=len(found) > limit))

    async def clear_cache(self, request: Request) -> Response:
        caller = await self.own.caller(request, administers=True)
        model = request.query_params.get("model")
        if model is not None and not (model.isprintable() and 0 < len(model) <= _MAX_MODEL_CHARS):
            raise InvalidRequest(f"`model`: {model[:40]!r} cannot be the name of a model", param="model")
        seen = await self.database.run(lambda connection: generations.clear(connection, model))
        if (cache := self.own.parts.response_cache) is not None:
            await cache.learn(seen)  # at once: who asks after our answer must not get what was cleared
        self.own.parts.audit.administer("cache.clear", model or "", key_id=caller.key_id)
        return Json(Cleared(model=model))
