"""`/v1/chat/completions`: request, answer and stream chunk in OpenAI's form.

The request knows every field of OpenAI's that changes an answer, so that one with a wrong type is refused by name.
Whether a field is *supported* is the serving endpoint's to say: Parkway's engine calls `refuse_unsupported`; the
gateway relays what it does not interpret, because a third-party endpoint may support more.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from parkway.core.errors import InvalidRequest, UnsupportedField, nearest
from parkway.core.grounding import Annotation, Grounded, GroundingRequest
from parkway.core.usage import Usage

Role = Literal["system", "developer", "user", "assistant", "tool", "function"]
FinishReason = Literal["stop", "length", "tool_calls", "content_filter", "function_call"]

Temperature = Annotated[float, Meta(ge=0, le=2)]
Probability = Annotated[float, Meta(ge=0, le=1)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
LogitBias = dict[str, Annotated[float, Meta(ge=-100, le=100)]]
RepetitionPenalty = Annotated[float, Meta(gt=0, le=10)]
Priority = Annotated[int, Meta(ge=-1000, le=1000)]
Count = Annotated[int, Meta(ge=1)]
Seed = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]


class Message(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One turn. `content` is text, a list of content parts, or absent beside tool calls."""

    role: Role
    content: str | list[dict[str, Any]] | None = None
    name: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None
    refusal: str | None = None

    def text(self) -> str:
        """The content as one string.

        Raises:
            UnsupportedField: A content part is not text.
        """
        if self.content is None or isinstance(self.content, str):
            return self.content or ""
        parts: list[str] = []
        for part in self.content:
            if part.get("type") != "text" or not isinstance(part.get("text"), str):
                kind = part.get("type")
                raise UnsupportedField(
                    f'content part of type {kind!r} is not supported; send parts of type "text"',
                    param="messages",
                )
            parts.append(part["text"])
        return "\n".join(parts)


class StreamOptions(msgspec.Struct, kw_only=True, omit_defaults=True):
    include_usage: bool = False
    include_obfuscation: bool = False


class StructuredOutputs(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The form of an answer beyond OpenAI's `response_format`, as vLLM has it; exactly one of the fields is given."""

    json: dict[str, Any] | bool | None = None
    regex: str | None = None
    choice: list[str] | None = None
    grammar: str | None = None


class ChatRequest(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A chat request.

    Beside OpenAI's fields: `conversation`, `knowledge` and `grounding`, which are Parkway's own, and `top_k`, `min_p`,
    `repetition_penalty`, `structured_outputs` and `priority` (the lower, the more urgent), as other engines have them.
    """

    model: str
    messages: Annotated[list[Message], Meta(min_length=1)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: Temperature | None = None
    top_p: Probability | None = None
    top_k: Annotated[int, Meta(ge=-1)] | None = None
    seed: Seed | None = None
    stop: str | list[str] | None = None
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    n: Count | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: LogitBias | None = None
    repetition_penalty: RepetitionPenalty | None = None
    min_p: Probability | None = None
    priority: Priority | None = None
    service_tier: str | None = None
    response_format: dict[str, Any] | None = None
    structured_outputs: StructuredOutputs | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: str | None = None
    user: str | None = None
    conversation: str | None = None
    knowledge: list[str] | None = None
    grounding: GroundingRequest | None = None

    @property
    def answer_limit(self) -> int | None:
        """The most tokens that the client wants, by either name of the field."""
        return self.max_completion_tokens if self.max_completion_tokens is not None else self.max_tokens


class TopLogprob(msgspec.Struct, kw_only=True):
    token: str
    logprob: float
    bytes: list[int]


class TokenLogprob(TopLogprob, kw_only=True):
    """Natural logarithm of a token's probability, with the `top_logprobs` likeliest beside it."""

    top_logprobs: list[TopLogprob]


class ChoiceLogprobs(msgspec.Struct, kw_only=True):
    content: list[TokenLogprob] | None = None
    refusal: None = None


class AnswerMessage(msgspec.Struct, kw_only=True):
    role: Literal["assistant"] = "assistant"
    content: str | None = None
    refusal: None = None
    tool_calls: list[dict[str, Any]] | UnsetType = UNSET
    annotations: list[Annotation] | UnsetType = UNSET


class Choice(msgspec.Struct, kw_only=True):
    """`stop_reason` is the stop string that ended the answer, as vLLM has it; unset where none did.

    `parkway` stands in each of several answers from documents.
    """

    index: int
    message: AnswerMessage
    finish_reason: FinishReason | None
    logprobs: ChoiceLogprobs | None = None
    stop_reason: str | UnsetType = UNSET
    parkway: Grounded | UnsetType = UNSET


class ChatCompletion(msgspec.Struct, kw_only=True):
    """The whole answer. `created` is in seconds since 1970; `parkway` stands in answers from documents, of choice 0."""

    id: str
    created: int
    model: str
    choices: list[Choice]
    usage: Usage | None = None
    object: Literal["chat.completion"] = "chat.completion"
    system_fingerprint: str | None = None
    parkway: Grounded | UnsetType = UNSET


class Delta(msgspec.Struct, kw_only=True, omit_defaults=True):
    role: Literal["assistant"] | None = None
    content: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    annotations: list[Annotation] | None = None


class ChunkChoice(msgspec.Struct, kw_only=True):
    index: int
    delta: Delta
    finish_reason: FinishReason | None = None
    logprobs: ChoiceLogprobs | None = None
    stop_reason: str | UnsetType = UNSET
    parkway: Grounded | UnsetType = UNSET


class ChatChunk(msgspec.Struct, kw_only=True):
    """One event of a streamed answer. `usage` is unset unless asked for; then it is null in all but the last.

    `parkway` stands beside the annotations, behind the text.
    """

    id: str
    created: int
    model: str
    choices: list[ChunkChoice]
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    system_fingerprint: str | None = None
    usage: Usage | UnsetType | None = UNSET
    parkway: Grounded | UnsetType = UNSET


# Fields that change nothing in the tokens of an answer: accepted and not needed.
HARMLESS = frozenset({
    "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention",
    "user",
})  # fmt: skip

_NEUTRAL: dict[str, tuple[object, ...]] = {
    # field -> values under which it does nothing, and which are therefore accepted
    "knowledge": (None, []),
    "grounding": (None,),
    "conversation": (None,),
    "reasoning_effort": (None,),
    "best_of": (None, 1),
    "suffix": (None, ""),
}


def refuse_unsupported(request: msgspec.Struct, names: Iterable[str]) -> None:
    """Refuses fields that Parkway's engine would have to ignore although they change the result.

    Args:
        request: A decoded `ChatRequest` or `CompletionRequest`.
        names: The names of all fields in the body, also those that the struct does not know.

    Raises:
        UnsupportedField: A known field that is not supported yet, with a value that would change the answer.
        InvalidRequest: A field that nobody knows; the message names the nearest one.
    """
    known = set(request.__struct_fields__)
    for name in names:
        if name not in known and name not in HARMLESS:
            raise InvalidRequest(
                f"`{name}`: unknown field.{nearest(name, known | HARMLESS)} Remove it or correct its name.",
                param=name,
            )
    for name in known & _NEUTRAL.keys():
        value = getattr(request, name)
        if value not in _NEUTRAL[name]:
            raise UnsupportedField(
                f"`{name}` is not supported by this model's engine yet, and ignoring it would change the answer; "
                f"leave it out",
                param=name,
            )
