"""What was decided about a request, for the audit log."""

from __future__ import annotations

from parkway.core.errors import ParkwayError
from parkway.pipeline.exchange import Exchange
from parkway.policy.audit import AuditLog
from parkway.policy.chain import Entry, Kind

_KINDS: dict[str, Kind] = {
    "missing_api_key": "deny",
    "invalid_api_key": "deny",
    "expired_api_key": "deny",
    "invalid_token": "deny",
    "expired_token": "deny",
    "identity_unavailable": "deny",
    "not_authenticated": "deny",
    "not_allowed": "deny",
    "collection_not_found": "deny",
    "rate_limit_exceeded": "limit",
    "overloaded": "limit",
    "prompt_too_long": "limit",
    "budget_exceeded": "budget",
    "content_blocked": "guardrail",
}
"""The codes of errors by which something was refused; any other error came to a request that was let in."""


def decide(exchange: Exchange, audit: AuditLog) -> None:
    """Appends the decision about `exchange`, which has ended.

    A request of a known caller that nobody could read is neither let in nor refused, and is in the request log alone.
    """
    error = exchange.error
    kind = kind_of(error)
    if kind == "allow" and (exchange.request is None or not audit.allowed):
        return
    caller, request = exchange.caller, exchange.request
    entry = Entry(
        kind=kind,
        action=exchange.surface.value,
        at_ms=exchange.started_ms,
        outcome=error.code if error is not None else "",
        key_id=caller.key_id if caller is not None else "",
        user=caller.user if caller is not None else None,
        team=caller.team if caller is not None else None,
        model=request.model if request is not None else "",
        request_id=exchange.request_id,
        source=exchange.source if caller is None else "",
    )
    if kind == "allow":
        audit.append(entry)
    else:
        audit.refuse(entry)


def kind_of(error: ParkwayError | None) -> Kind:
    """What was decided about a request that ended with `error`."""
    if error is None:
        return "allow"
    kind = _KINDS.get(error.code, "allow")
    # An endpoint's own words: its refusal of a request that we had let in.
    return "allow" if kind != "allow" and error.__class__.code != error.code else kind
