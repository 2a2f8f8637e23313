"""Which class a request has."""

from __future__ import annotations

import pytest

from parkway.core.chat import ChatRequest
from parkway.core.errors import InvalidRequest
from parkway.core.wire import decode, encode
from parkway.pipeline.exchange import Exchange, Surface
from parkway.pipeline.shaping import Shaping
from parkway.router.admission.config import AdmissionConfig
from tests.pipeline.test_routing import Nobody


def exchange(content: object, **fields: object) -> Exchange:
    body = encode({"model": "m", "messages": [{"role": "user", "content": content}], **fields})
    made = Exchange(
        request_id="req_1", surface=Surface.CHAT, client=Nobody(), authorization=None, deadline=0, body=body
    )
    made.request = decode(body, ChatRequest)
    return made


@pytest.mark.parametrize(
    ("tier", "priority", "service_tier", "lane"),
    [
        (None, None, None, 1),
        (None, "batch", None, 2),
        (None, "interactive", None, 1),
        ("gold", None, None, 0),
        ("gold", "standard", None, 1),
        ("gold", None, "flex", 2),
        (None, None, "priority", 1),
        ("unknown", None, "auto", 1),
    ],
)
def test_a_class_is_lowered_and_never_raised(
    tier: str | None, priority: str | None, service_tier: str | None, lane: int
) -> None:
    shaping = Shaping(AdmissionConfig.model_validate({"tiers": {"gold": {"class": "interactive"}}}))
    asked = exchange("x", **({"service_tier": service_tier} if service_tier else {}))
    asked.priority = priority
    assert shaping.lane(asked, shaping.standing(tier)) == lane


def test_a_class_that_does_not_exist_is_refused_with_the_nearest() -> None:
    shaping = Shaping(AdmissionConfig())
    asked = exchange("x")
    asked.priority = "standart"
    with pytest.raises(InvalidRequest, match='Did you mean "standard"'):
        shaping.lane(asked, shaping.standing(None))
