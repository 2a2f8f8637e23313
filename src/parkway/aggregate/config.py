"""The configuration of conversations."""

from pydantic import Field

from parkway.core.configuration import Section


class ConversationConfig(Section):
    """How much the server remembers.

    Attributes:
        max_messages: Of one conversation; beyond it the oldest turns are forgotten.
        max_bytes: Of one conversation, as JSON; beyond it the oldest turns are forgotten.
        max_conversations: Of one key; one more is refused.
    """

    max_messages: int = Field(default=200, ge=2, le=100_000)
    max_bytes: int = Field(default=262_144, ge=1024, le=1 << 30)
    max_conversations: int = Field(default=1000, ge=1, le=1_000_000)
