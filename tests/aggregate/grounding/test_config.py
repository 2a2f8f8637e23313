"""What holds for a request: the settings, the model's own, and what the request asks for less of."""

from __future__ import annotations

from typing import Any

import pytest

from parkway.aggregate.grounding.config import GroundingConfig, ModelGrounding, Terms, terms_for
from parkway.core.grounding import GroundingRequest, Tier
from parkway.launch.settings import Settings


@pytest.mark.parametrize(
    ("model", "general", "tier"),
    [
        ("large", "generated", "generated"),
        ("large", "links", "links"),
        ("park-mini", "generated", "extractive"),
        ("park-mini:law", "generated", "extractive"),
        ("park-mini", "links", "links"),
        ("small", "generated", "extractive"),
        ("small:law", "generated", "extractive"),
        ("small", "links", "links"),
        ("brave", "generated", "generated"),
    ],
)
def test_the_tier_is_the_models(model: str, general: Tier, tier: Tier) -> None:
    settings = Settings.model_validate(
        {
            "grounding": {"tier": general},
            "models": {
                "large": "http://127.0.0.1:1/v1",
                "park-mini": "park-mini",
                "small": "park-mini",
                "brave": {"path": "park-mini", "grounding": {"tier": "generated"}},
            },
        }
    )
    assert terms_for(model, settings.grounding, settings.grounded_models(), None).tier == tier


@pytest.mark.parametrize(
    ("asked", "terms"),
    [
        ({}, Terms("extractive", "mark", 1000, 0.5)),
        ({"tier": "generated", "check": "off", "context_tokens": 9000, "min_confidence": 0.1},
         Terms("extractive", "mark", 1000, 0.5)),
        ({"tier": "links", "check": "drop", "context_tokens": 100, "min_confidence": 0.9},
         Terms("links", "drop", 100, 0.9)),
    ],
)  # fmt: skip
def test_a_request_asks_for_less_and_never_for_more(asked: dict[str, Any], terms: Terms) -> None:
    models = {"m": ModelGrounding(tier="extractive", context_tokens=1000, min_confidence=0.5)}
    assert terms_for("m", GroundingConfig(), models, GroundingRequest(**asked)) == terms
