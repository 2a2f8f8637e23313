"""What tokens of a model cost, in whole micro-dollars."""

from __future__ import annotations

from functools import cached_property
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
        prompt, cached_prompt, completion = self._of_a_token
        total = prompt_tokens * prompt + completion_tokens * completion
        if cached_tokens:
            total -= min(cached_tokens, prompt_tokens) * (prompt - cached_prompt)
        return -(-total // _SCALE)

    @cached_property
    def _of_a_token(self) -> tuple[int, int, int]:
        """What a token costs in millionths of a micro-dollar: of a prompt, of one that was cached, of an answer."""
        prompt, cached = self.prompt_usd_per_million, self.cached_prompt_usd_per_million
        if cached is None:
            cached = prompt
        return round(prompt * _SCALE), round(cached * _SCALE), round(self.completion_usd_per_million * _SCALE)
