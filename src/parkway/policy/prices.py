"""What tokens of a model cost, in whole micro-dollars."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from parkway.core.configuration import Section

UsdPerMillion = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]

_SCALE = 1_000_000


class Price(Section):
    """The price of a model. A dollar per million tokens is a micro-dollar a token.

    Attributes:
        cached_prompt_usd_per_million: For prompt tokens that the endpoint had in its cache; as others by default.
    """

    prompt_usd_per_million: UsdPerMillion = 0.0
    completion_usd_per_million: UsdPerMillion = 0.0
    cached_prompt_usd_per_million: UsdPerMillion | None = None

    def micro_usd(self, prompt_tokens: int, completion_tokens: int, cached_tokens: int = 0) -> int:
        """What so many tokens cost, rounded up; `cached_tokens` are those of the prompt."""
        dear = round(self.prompt_usd_per_million * _SCALE)
        cheap = self.cached_prompt_usd_per_million
        cached = min(cached_tokens, prompt_tokens)
        total = (prompt_tokens - cached) * dear
        total += cached * (dear if cheap is None else round(cheap * _SCALE))
        total += completion_tokens * round(self.completion_usd_per_million * _SCALE)
        return -(-total // _SCALE)
