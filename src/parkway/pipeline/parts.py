"""What the stages of the pipeline work with; put together once, by `launch/gateway.py`."""

from __future__ import annotations

from dataclasses import dataclass

from parkway.aggregate.conversations import Conversations
from parkway.aggregate.responses import Responses
from parkway.feedback.log import RequestLog
from parkway.feedback.metrics import Metrics
from parkway.feedback.traces import TraceLog
from parkway.pipeline.bounds import Bounds
from parkway.pipeline.shaping import Shaping
from parkway.policy.audit import AuditLog
from parkway.policy.guardrails.guardrails import Guardrails
from parkway.policy.keys import KeyRing
from parkway.policy.limiter import Limiter
from parkway.router.admission.gates import Gates
from parkway.router.router import Router


@dataclass(frozen=True, slots=True)
class Parts:
    keys: KeyRing
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
