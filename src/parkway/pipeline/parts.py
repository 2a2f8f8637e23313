"""What the stages of the pipeline work with; put together once, by `launch/gateway.py`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from parkway.aggregate.conversations import Conversations
from parkway.aggregate.response_cache.cache import ResponseCache
from parkway.aggregate.responses import Responses
from parkway.feedback.log import RequestLog
from parkway.feedback.metrics import Metrics
from parkway.feedback.traces import TraceLog
from parkway.pipeline.bounds import Bounds
from parkway.pipeline.flight import Flights
from parkway.pipeline.grounds import Grounds
from parkway.pipeline.shaping import Shaping
from parkway.policy.audit import AuditLog
from parkway.policy.guardrails.guardrails import Guardrails
from parkway.policy.identity import Identity
from parkway.policy.limiter import Limiter
from parkway.policy.permissions import Permissions
from parkway.router.admission.gates import Gates
from parkway.router.knowledge import Knowledge
from parkway.router.router import Router


@dataclass(frozen=True, slots=True)
class Parts:
    identity: Identity
    permissions: Permissions
    limiter: Limiter
    conversations: Conversations
    responses: Responses
    shaping: Shaping
    gates: Gates
    router: Router
    log: RequestLog
    metrics: Metrics
    audit: AuditLog
    traces: TraceLog
    bounds: Bounds
    guardrails: Guardrails
    response_cache: ResponseCache | None
    flights: Flights
    grounds: Grounds
    knowledge: Knowledge


@dataclass(slots=True)
class Current:
    """The parts in force. A request takes them once, when it begins, and keeps them to its end."""

    parts: Parts

    def change(self, **changes: Any) -> None:
        """Puts other parts, by their names, into force for requests that begin from now on."""
        self.parts = replace(self.parts, **changes)
