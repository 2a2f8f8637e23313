"""Token counts of one request, as OpenAI reports them."""

import msgspec


class PromptDetails(msgspec.Struct, frozen=True):
    """What is known of the prompt's tokens; `cached_tokens` were found in the cache instead of computed."""

    cached_tokens: int = 0


class Usage(msgspec.Struct, kw_only=True, omit_defaults=True, frozen=True):
    """Tokens of the prompt, of the answer, and both together."""

    prompt_tokens: int
    total_tokens: int
    completion_tokens: int = 0
    prompt_tokens_details: PromptDetails | None = None

    @classmethod
    def of(cls, prompt_tokens: int, completion_tokens: int = 0, *, cached_tokens: int | None = None) -> "Usage":
        """`cached_tokens` are those of the prompt that were not computed; None where nobody counts them."""
        return cls(
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
            total_tokens=prompt_tokens + completion_tokens,
            prompt_tokens_details=None if cached_tokens is None else PromptDetails(cached_tokens),
        )
