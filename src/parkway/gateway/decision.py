"""What was decided about a request to one of Parkway's own routes, for the audit log."""

from __future__ import annotations

from starlette.requests import Request

from parkway.core.errors import ParkwayError
from parkway.gateway.body import source_of
from parkway.pipeline.decision import kind_of
from parkway.policy.audit import AuditLog
from parkway.policy.caller import Caller
from parkway.policy.chain import Entry, now_ms

_MAX_PATH_CHARS = 200


def of_own_route(audit: AuditLog, request: Request, caller: Caller | None, error: ParkwayError | None) -> None:
    """Appends whether `caller` was let in; None is somebody who could not say who."""
    kind = kind_of(error)
    if kind == "allow" and not audit.allowed:
        return
    entry = Entry(
        kind=kind,
        action=f"{request.method} {request.scope['path'][:_MAX_PATH_CHARS]}",
        at_ms=now_ms(),
        outcome=error.code if error is not None else "",
        key_id=caller.key_id if caller is not None else "",
        user=caller.user if caller is not None else None,
        team=caller.team if caller is not None else None,
        request_id=request.scope["state"]["request_id"],
        source=source_of(request.scope) if caller is None else "",
    )
    if kind == "allow":
        audit.append(entry)
    else:
        audit.refuse(entry)
