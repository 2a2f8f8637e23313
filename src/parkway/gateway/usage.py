"""`/v1/usage` and `/v1/budgets`: what was used, what it cost, and what is left."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from parkway.core.errors import InvalidRequest, NotAllowed, nearest
from parkway.feedback.usage import FILTERS, GROUPS, GroupBy, usage
from parkway.gateway.own import Json, OwnRoutes
from parkway.policy.caller import Caller
from parkway.policy.limiter import BudgetState
from parkway.store.sql import Database

DEFAULT_DAYS = 30
_TIMEOUT_S = 30.0
_MAX_MS = 2**53
_MAX_NAME_CHARS = 256


class BudgetList(msgspec.Struct, kw_only=True):
    data: list[BudgetState]
    object: str = "list"


@dataclass(frozen=True, slots=True)
class UsageRoutes:
    """The handlers; `gateway/app.py` gives each its path."""

    own: OwnRoutes
    database: Database

    async def show_usage(self, request: Request) -> Response:
        """A caller sees what its key has used; whoever administers the installation sees all."""
        caller = await self.own.caller(request)
        query = request.query_params
        group_by = _group_by(query.get("group_by", "model"))
        to_ms = _moment("to", query.get("to"), int(time.time() * 1000) + 1)
        from_ms = _moment("from", query.get("from"), to_ms - DEFAULT_DAYS * 86_400_000)
        only = {name: _filter(name, query[name]) for name in FILTERS if name in query}
        if not self.sees_all(caller):
            if only.get("key", caller.key_id) != caller.key_id:
                raise NotAllowed("The usage of other keys is for administrators; leave `key` out to see your own.")
            only["key"] = caller.key_id
        found = await self.database.run(
            lambda connection: usage(connection, group_by, from_ms, to_ms, only), write=False, timeout_s=_TIMEOUT_S
        )
        return Json(found)

    async def list_budgets(self, request: Request) -> Response:
        """The budgets that hold for the caller."""
        caller = await self.own.caller(request)
        return Json(BudgetList(data=await self.own.parts.limiter.budgets(caller)))

    def sees_all(self, caller: Caller) -> bool:
        """Whether the usage of everybody is the caller's business."""
        return self.own.parts.permissions.allows(caller, "administer")


def _group_by(given: str) -> GroupBy:
    for group in GROUPS:
        if group == given:
            return group
    raise InvalidRequest(
        f"`group_by`: {given[:40]!r} is none of {', '.join(GROUPS)}.{nearest(given, GROUPS)}", param="group_by"
    )


def _filter(name: str, given: str) -> str:
    if not given.isprintable() or len(given) > _MAX_NAME_CHARS:
        raise InvalidRequest(
            f"`{name}`: {given[:40]!r} is not a name; one has at most {_MAX_NAME_CHARS} printable characters",
            param=name,
        )
    return given


def _moment(name: str, given: str | None, default: int) -> int:
    """A time from the query in milliseconds since 1970: a date, a date and time, or seconds since 1970."""
    if given is None:
        return default
    try:
        if given.isascii() and given.isdigit():
            found = int(given[:20]) * 1000
        else:
            moment = datetime.fromisoformat(given)
            found = int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
    except (ValueError, OverflowError):
        found = -1
    if not 0 <= found <= _MAX_MS:
        raise InvalidRequest(
            f"`{name}`: {given[:40]!r} is not a time; give 2026-11-01, 2026-11-01T12:00:00Z or seconds since 1970",
            param=name,
        )
    return found
