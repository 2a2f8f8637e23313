"""`/v1/messages`: request, answer, stream event and error in the form of Anthropic's Messages API."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from parkway.core.chat import Count, Probability
from parkway.core.grounding import GroundingRequest

StopReason = Literal["end_turn", "max_tokens", "stop_sequence", "tool_use", "refusal"]


class ImageSource(msgspec.Struct, kw_only=True, omit_defaults=True):
    """An image: `base64` with `media_type` and `data`, or a `url`."""

    type: str
    media_type: str | None = None
    data: str | None = None
    url: str | None = None


class InputBlock(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A block of a message: `text`, `image`, `tool_use` or `tool_result`. Thinking is read and left out.

    `cache_control` is accepted and changes nothing: engines keep the beginnings of prompts by themselves.
    """

    type: str
    text: str | None = None
    source: ImageSource | None = None
    id: str | None = None
    name: str | None = None
    input: dict[str, Any] | None = None
    tool_use_id: str | None = None
    content: str | list[InputBlock] | None = None
    is_error: bool | None = None


class InputMessage(msgspec.Struct, kw_only=True):
    role: Literal["user", "assistant", "system"]
    content: str | list[InputBlock]


class MessagesTool(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A tool of the client's own; `input_schema` is the JSON Schema of its input."""

    name: str
    type: str | None = None
    description: str | None = None
    input_schema: dict[str, Any] | None = None
    strict: bool | None = None


class ToolChoice(msgspec.Struct, kw_only=True, omit_defaults=True):
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class RequestMetadata(msgspec.Struct, kw_only=True, omit_defaults=True):
    user_id: Annotated[str, Meta(max_length=512)] | None = None


class Thinking(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Whether the client wants to see what a model thinks. How long it thinks is the endpoint's to say."""

    type: Literal["enabled", "disabled", "adaptive", "between_tools"]
    budget_tokens: Count | None = None
    display: str | None = None


class OutputFormat(msgspec.Struct, kw_only=True, omit_defaults=True):
    type: Literal["json_schema"]
    schema: dict[str, Any]


class OutputConfig(msgspec.Struct, kw_only=True, omit_defaults=True):
    format: OutputFormat | None = None
    effort: str | None = None


class CountRequest(msgspec.Struct, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What has an effect on the length of a prompt: the body of `/v1/messages/count_tokens`."""

    model: str
    messages: Annotated[list[InputMessage], Meta(min_length=1)]
    system: str | list[InputBlock] | None = None
    tools: list[MessagesTool] | None = None
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    cache_control: dict[str, Any] | None = None
    speed: str | None = None
    context_management: dict[str, Any] | None = None
    mcp_servers: list[dict[str, Any]] | None = None


class MessagesRequest(CountRequest, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A request for a message. Fields that ask for what the gateway does not do are refused with the reason."""

    max_tokens: Count
    stop_sequences: list[str] | None = None
    stream: bool | None = None
    temperature: Probability | None = None
    top_p: Probability | None = None
    top_k: Annotated[int, Meta(ge=0)] | None = None
    metadata: RequestMetadata | None = None
    service_tier: str | None = None
    inference_geo: str | None = None
    container: str | dict[str, Any] | None = None
    knowledge: list[str] | None = None
    grounding: GroundingRequest | None = None


class Block(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A block of an answer: `text`, `thinking` or `tool_use`."""

    type: Literal["text", "thinking", "tool_use"]
    text: str | UnsetType = UNSET
    citations: list[dict[str, Any]] | UnsetType | None = UNSET
    thinking: str | UnsetType = UNSET
    signature: str | UnsetType = UNSET
    id: str | UnsetType = UNSET
    name: str | UnsetType = UNSET
    input: dict[str, Any] | UnsetType = UNSET


class MessageUsage(msgspec.Struct, kw_only=True, frozen=True):
    """Tokens. Those of the prompt that were found in a cache are not among `input_tokens`."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_creation_input_tokens: int = 0
    cache_read_input_tokens: int = 0


class AnthropicMessage(msgspec.Struct, kw_only=True):
    """The answer."""

    id: str
    model: str
    content: list[Block]
    type: Literal["message"] = "message"
    role: Literal["assistant"] = "assistant"
    stop_reason: StopReason | None = None
    stop_sequence: str | None = None
    usage: MessageUsage = MessageUsage()
    parkway: dict[str, Any] | UnsetType = UNSET


class BlockDelta(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What an event adds: to a block (`type` says what), or to the message (why it stopped)."""

    type: str | UnsetType = UNSET
    text: str | UnsetType = UNSET
    partial_json: str | UnsetType = UNSET
    thinking: str | UnsetType = UNSET
    signature: str | UnsetType = UNSET
    citation: dict[str, Any] | UnsetType = UNSET
    stop_reason: StopReason | UnsetType | None = UNSET
    stop_sequence: str | UnsetType | None = UNSET


class MessageEvent(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One event of a streamed message; which fields there are depends on `type`."""

    type: str
    message: AnthropicMessage | UnsetType = UNSET
    index: int | UnsetType = UNSET
    content_block: Block | UnsetType = UNSET
    delta: BlockDelta | UnsetType = UNSET
    usage: MessageUsage | UnsetType = UNSET
    parkway: dict[str, Any] | UnsetType = UNSET


class TokenCount(msgspec.Struct, kw_only=True):
    input_tokens: int


class AnthropicErrorDetail(msgspec.Struct, kw_only=True):
    type: str
    message: str


class AnthropicError(msgspec.Struct, kw_only=True):
    """Every answer under `/v1/messages` with a status of 400 and above, and the last event of a stream that failed."""

    error: AnthropicErrorDetail
    type: Literal["error"] = "error"
    request_id: str | None = None
