"""Limits on the size of one request and of its answer."""

from parkway.core.configuration import Section


class Bounds(Section):
    """What one request may hold. Everything has a limit; these are the ones that people change."""

    max_body_bytes: int = 4 * 1024 * 1024
    max_messages: int = 2048
    max_choices: int = 8
    """The most that `n` may ask for."""
    max_stop_strings: int = 16
    max_inputs: int = 2048
    """The most texts in one embeddings request, as at OpenAI."""
    max_answer_bytes: int = 64 * 1024 * 1024
