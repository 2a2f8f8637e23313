"""`/v1/traces`: what the caller's requests did, and when."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from starlette.requests import Request
from starlette.responses import Response

from parkway.core.errors import InvalidRequest
from parkway.feedback.trace_list import TraceFilter, list_traces, read_trace
from parkway.gateway.own import Json, OwnRoutes, integer
from parkway.policy.caller import Caller
from parkway.store.sql import Database

LATEST_MS = 9_000_000_000_000
"""In the year 2255: in nanoseconds it fits into the 64 bits of a column."""

LONGEST_MS = 2**31


@dataclass(frozen=True, slots=True)
class TraceRoutes:
    """The handlers; `gateway/app.py` gives each its path."""

    own: OwnRoutes
    database: Database

    async def list(self, request: Request) -> Response:
        caller = await self.own.caller(request)
        given = request.query_params
        wanted = TraceFilter(
            key_id=self._whose(caller),
            limit=integer(request, "limit", default=20, low=1, high=100),
            after=given.get("after"),
            since_ms=integer(request, "since_ms", default=0, low=0, high=LATEST_MS) if "since_ms" in given else None,
            status=_status(given.get("status")),
            min_ms=integer(request, "min_ms", default=0, low=0, high=LONGEST_MS) if "min_ms" in given else None,
        )
        return Json(await self.database.run(lambda connection: list_traces(connection, wanted), write=False))

    async def show(self, request: Request) -> Response:
        caller = await self.own.caller(request)
        trace: str = request.path_params["trace"]
        key_id = self._whose(caller)
        return Json(await self.database.run(lambda connection: read_trace(connection, trace, key_id), write=False))

    def _whose(self, caller: Caller) -> str | None:
        """Whose traces the caller may see: its own, or everybody's (None)."""
        return None if self.own.parts.permissions.allows(caller, "administer") else caller.key_id


def _status(given: str | None) -> Literal["ok", "error"] | None:
    match given:
        case None:
            return None
        case "ok" | "error":
            return given
        case _:
            raise InvalidRequest(f"`status`: {given[:40]!r} is neither `ok` nor `error`", param="status")
