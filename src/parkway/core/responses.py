"""`/v1/responses`: request, answer and stream event in the form of OpenAI's Responses API.

Items and their parts are one struct each with a `type`, because clients send back, as input, whatever an earlier answer
held; what no item may be is told where it is read (`aggregate/dialects/responses_request.py`).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from parkway.core.chat import Count, Probability, Temperature
from parkway.core.grounding import GroundingRequest

ItemStatus = Literal["in_progress", "completed", "incomplete"]
MetadataKey = Annotated[str, Meta(max_length=64)]
MetadataValue = Annotated[str, Meta(max_length=512)]
Includable = Literal[
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "message.input_image.image_url",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
    "reasoning.encrypted_content",
    "message.output_text.logprobs",
]


class InputPart(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A part of a message: `input_text`, `output_text`, `input_image` or `refusal`."""

    type: str
    text: str | None = None
    refusal: str | None = None
    image_url: str | None = None
    detail: str | None = None


class InputItem(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What a model is given: a message, a call of a function, or what came of one. Reasoning is read and left out."""

    type: str | None = None
    id: str | None = None
    role: Literal["user", "assistant", "system", "developer"] | None = None
    content: str | list[InputPart] | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    output: str | list[InputPart] | None = None


class TextFormat(msgspec.Struct, kw_only=True, omit_defaults=True):
    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    schema: dict[str, Any] | None = None
    strict: bool | None = None
    description: str | None = None


class TextConfig(msgspec.Struct, kw_only=True, omit_defaults=True):
    format: TextFormat | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class ReasoningConfig(msgspec.Struct, kw_only=True, omit_defaults=True):
    effort: str | None = None
    summary: str | None = None
    generate_summary: str | None = None


class ResponseStreamOptions(msgspec.Struct, kw_only=True, omit_defaults=True):
    include_obfuscation: bool | None = None


class ResponseRequest(msgspec.Struct, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A request for a response. Fields that ask for what the gateway does not do are refused with the reason."""

    model: str
    input: str | list[InputItem]
    instructions: str | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    text: TextConfig | None = None
    reasoning: ReasoningConfig | None = None
    max_output_tokens: Count | None = None
    max_tool_calls: Count | None = None
    temperature: Temperature | None = None
    top_p: Probability | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    metadata: Annotated[dict[MetadataKey, MetadataValue], Meta(max_length=16)] | None = None
    store: bool | None = None
    previous_response_id: str | None = None
    truncation: Literal["auto", "disabled"] | None = None
    include: list[Includable] | None = None
    stream: bool | None = None
    stream_options: ResponseStreamOptions | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    prompt_cache_options: dict[str, Any] | None = None
    service_tier: str | None = None
    background: bool | None = None
    conversation: str | dict[str, Any] | None = None
    prompt: dict[str, Any] | None = None
    moderation: dict[str, Any] | None = None
    context_management: list[dict[str, Any]] | None = None
    knowledge: list[str] | None = None
    grounding: GroundingRequest | None = None


class OutputPart(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A part of what a model says: `output_text`, `refusal` or `reasoning_text`."""

    type: Literal["output_text", "refusal", "reasoning_text"]
    text: str | UnsetType = UNSET
    refusal: str | UnsetType = UNSET
    annotations: list[dict[str, Any]] | UnsetType = UNSET
    logprobs: list[Any] | UnsetType = UNSET


class OutputItem(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What a model answers: a `message`, a `function_call`, or its `reasoning`."""

    id: str
    type: Literal["message", "function_call", "reasoning"]
    status: ItemStatus
    role: Literal["assistant"] | UnsetType = UNSET
    content: list[OutputPart] | UnsetType = UNSET
    call_id: str | UnsetType = UNSET
    name: str | UnsetType = UNSET
    arguments: str | UnsetType = UNSET
    summary: list[dict[str, Any]] | UnsetType = UNSET


class InputTokensDetails(msgspec.Struct, kw_only=True, frozen=True):
    cached_tokens: int = 0
    cache_write_tokens: int = 0


class OutputTokensDetails(msgspec.Struct, kw_only=True, frozen=True):
    reasoning_tokens: int = 0


class ResponseUsage(msgspec.Struct, kw_only=True, frozen=True):
    input_tokens: int
    output_tokens: int
    total_tokens: int
    input_tokens_details: InputTokensDetails = InputTokensDetails()
    output_tokens_details: OutputTokensDetails = OutputTokensDetails()


class ResponseFailure(msgspec.Struct, kw_only=True):
    """Why a response failed; `code` is one of OpenAI's few, the event `error` before it has the one of Parkway."""

    code: Literal["server_error", "rate_limit_exceeded"]
    message: str


class IncompleteDetails(msgspec.Struct, kw_only=True):
    reason: Literal["max_output_tokens", "content_filter"]


class Response(msgspec.Struct, kw_only=True):
    """The answer. Times are in seconds since 1970."""

    id: str
    created_at: int
    model: str
    status: Literal["in_progress", "completed", "incomplete", "failed"]
    output: list[OutputItem]
    tools: list[dict[str, Any]]
    tool_choice: str | dict[str, Any]
    parallel_tool_calls: bool
    object: Literal["response"] = "response"
    background: bool = False
    completed_at: int | None = None
    error: ResponseFailure | None = None
    incomplete_details: IncompleteDetails | None = None
    instructions: str | None = None
    max_output_tokens: int | None = None
    max_tool_calls: int | None = None
    metadata: dict[str, str] = {}
    previous_response_id: str | None = None
    prompt_cache_key: str | None = None
    reasoning: ReasoningConfig | None = None
    safety_identifier: str | None = None
    service_tier: str | None = None
    store: bool = True
    temperature: float | None = None
    text: TextConfig | None = None
    top_logprobs: int | None = None
    top_p: float | None = None
    truncation: str = "disabled"
    usage: ResponseUsage | None = None
    user: str | None = None
    parkway: dict[str, Any] | UnsetType = UNSET


class ResponseEvent(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One event of a streamed response; which fields there are depends on `type`."""

    type: str
    sequence_number: int
    response: Response | UnsetType = UNSET
    item_id: str | UnsetType = UNSET
    output_index: int | UnsetType = UNSET
    content_index: int | UnsetType = UNSET
    item: OutputItem | UnsetType = UNSET
    part: OutputPart | UnsetType = UNSET
    delta: str | UnsetType = UNSET
    text: str | UnsetType = UNSET
    refusal: str | UnsetType = UNSET
    name: str | UnsetType = UNSET
    arguments: str | UnsetType = UNSET
    logprobs: list[Any] | UnsetType = UNSET
    code: str | UnsetType | None = UNSET
    message: str | UnsetType = UNSET
    param: str | UnsetType | None = UNSET
    annotation: dict[str, Any] | UnsetType = UNSET
    annotation_index: int | UnsetType = UNSET


class KeptItem(msgspec.Struct, kw_only=True, omit_defaults=True):
    """An item of the input of a kept response, as its owner may list it."""

    id: str
    type: Literal["message", "function_call", "function_call_output"]
    status: ItemStatus = "completed"
    role: str | UnsetType = UNSET
    content: list[dict[str, Any]] | UnsetType = UNSET
    call_id: str | UnsetType = UNSET
    name: str | UnsetType = UNSET
    arguments: str | UnsetType = UNSET
    output: str | list[dict[str, Any]] | UnsetType = UNSET


class ItemPage(msgspec.Struct, kw_only=True):
    """Items of an input. `has_more` says that `after` the last of them there are others."""

    data: list[KeptItem]
    first_id: str
    last_id: str
    has_more: bool
    object: Literal["list"] = "list"


class DeletedResponse(msgspec.Struct, kw_only=True):
    id: str
    object: Literal["response"] = "response"
    deleted: bool = True
