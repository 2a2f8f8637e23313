"""What was decided about requests that no pipeline sees, for the audit log: those to Parkway's own routes, and those
that were refused at the door."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import Request
from starlette.types import Scope

from parkway.core.errors import ParkwayError
from parkway.gateway.body import source_of
from parkway.pipeline.decision import kind_of
from parkway.policy.audit import AuditLog
from parkway.policy.caller import Caller
from parkway.policy.chain import Entry, now_ms

_MAX_PATH_CHARS = 200


@dataclass(frozen=True, slots=True)
class Asked:
    """What is known of a request that was refused before anybody read it.

    Attributes:
        action: Method and path, or `connection` where not even those are known.
        source: The address that it came from.
    """

    action: str
    request_id: str
    source: str


def asked_for(scope: Scope) -> str:
    """Method and path of a request, as an action."""
    return f"{scope['method']} {scope['path'][:_MAX_PATH_CHARS]}"


def refused(audit: AuditLog, error: ParkwayError, asked: Asked) -> None:
    """Appends that somebody was refused at the door: there were too many, or what came could not be read."""
    audit.refuse(
        Entry(
            kind="limit" if error.status == 503 else "deny",
            action=asked.action,
            at_ms=now_ms(),
            outcome=error.code,
            request_id=asked.request_id,
            source=asked.source,
        )
    )


def of_own_route(audit: AuditLog, request: Request, caller: Caller | None, error: ParkwayError | None) -> None:
    """Appends whether `caller` was let in; None is somebody who could not say who."""
    kind = kind_of(error)
    if kind == "allow" and not audit.allowed:
        return
    entry = Entry(
        kind=kind,
        action=asked_for(request.scope),
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
