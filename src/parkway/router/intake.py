"""What an endpoint takes: how many requests at once, and prompts of which length."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Intake:
    """What may be sent to an endpoint.

    Attributes:
        max_concurrency: Requests that it should have at one moment; None where nobody knows.
        min_prompt_tokens, max_prompt_tokens: The prompts that are sent to it, as estimated, both ends included.
    """

    max_concurrency: int | None = None
    min_prompt_tokens: int = 0
    max_prompt_tokens: int | None = None

    def takes(self, prompt_tokens: int) -> bool:
        """Whether a prompt of this length may be sent to it."""
        return self.min_prompt_tokens <= prompt_tokens and (
            self.max_prompt_tokens is None or prompt_tokens <= self.max_prompt_tokens
        )

    @property
    def least_first(self) -> tuple[int, float]:
        """Sort key: the range that begins lowest comes first, and of those the one that ends first."""
        return self.min_prompt_tokens, self.max_prompt_tokens if self.max_prompt_tokens is not None else float("inf")


ANYTHING = Intake()
