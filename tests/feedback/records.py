"""Records for tests: everything has a value, and each test changes what it is about."""

from __future__ import annotations

from typing import Any

from parkway.core.ids import new_id
from parkway.feedback.record import RequestRecord

STARTED_MS = 1_760_000_000_000


def make_record(**changes: Any) -> RequestRecord:
    values: dict[str, Any] = {
        "request_id": new_id("req"),
        "response_id": new_id("chatcmpl"),
        "key_id": "alice",
        "surface": "chat",
        "model": "park-mini",
        "endpoint_id": "ep_1",
        "stream": True,
        "status": 200,
        "outcome": "ok",
        "prompt_tokens": 12,
        "completion_tokens": 34,
        "first_token_ms": 25.5,
        "total_ms": 250.25,
        "attempts": 1,
        "conversation_id": "c1",
        "started_ms": STARTED_MS,
    }
    return RequestRecord(**{**values, **changes})
