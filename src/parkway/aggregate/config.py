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


class ResponsesConfig(Section):
    """Which answers of `/v1/responses` the server keeps, for `previous_response_id` and for their owner to read.

    Attributes:
        max_chain: Answers that a request may go on from, one behind the other.
        max_bytes: Of one request and answer with all that they go on from, as JSON.
        max_responses: Of one key, about; beyond it the oldest are forgotten.
        retention_days: Older ones are forgotten.
    """

    max_chain: int = Field(default=200, ge=1, le=10_000)
    max_bytes: int = Field(default=1_048_576, ge=1024, le=1 << 30)
    max_responses: int = Field(default=10_000, ge=1, le=10_000_000)
    retention_days: int = Field(default=30, ge=1, le=36_500)
