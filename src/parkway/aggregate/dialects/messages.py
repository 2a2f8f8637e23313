"""Anthropic's Messages API as a dialect: blocks and their events, and errors in its own form."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from parkway.aggregate.dialects.dialect import Dialect, as_object, event_of, nested_too_deeply
from parkway.aggregate.dialects.messages_request import chat_request, refuse_unsupported
from parkway.core.errors import EndpointFailed, MalformedJSON, Overloaded
from parkway.core.grounding import Citation, Grounded
from parkway.core.ids import new_id
from parkway.core.messages import (
    AnthropicError,
    AnthropicErrorDetail,
    AnthropicMessage,
    Block,
    BlockDelta,
    CountRequest,
    MessageEvent,
    MessagesRequest,
    MessageUsage,
    StopReason,
    TokenCount,
)
from parkway.core.wire import decode, encode

OVERLOADED = 529

_STOPS: dict[str, StopReason] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}

# Source: the API's documentation, "Errors".
_TYPES = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    OVERLOADED: "overloaded_error",
}


def refusal(status: int, error: dict[str, Any]) -> tuple[int, bytes]:
    """OpenAI's error object in Anthropic's form, and the status that goes with it: 503 is 529 there."""
    status = anthropic_status(status)
    kind = _TYPES.get(status) or ("api_error" if status >= 500 else "invalid_request_error")
    return status, _error(kind, error)


def anthropic_status(status: int) -> int:
    """Anthropic's status for an error: a server that cannot answer now is overloaded there."""
    return OVERLOADED if status == Overloaded.status else status


def _error(kind: str, error: dict[str, Any]) -> bytes:
    message = str(error.get("message") or "the request failed")
    request_id = error.get("request_id")
    return encode(AnthropicError(error=AnthropicErrorDetail(type=kind, message=message), request_id=request_id))


def _citation(citation: Citation) -> dict[str, Any]:
    """A citation as this API has it: a span of a document. Documents are numbered as in the answer, from 0."""
    return {
        "type": "char_location",
        "cited_text": citation.quote,
        "document_index": citation.number - 1,
        "document_title": citation.title or citation.uri or None,
        "start_char_index": citation.start or 0,
        "end_char_index": citation.end or 0,
        "file_id": citation.document_id,
    }


class MessagesDialect(Dialect):
    """One request for a message. Blocks follow one another: the one that is open is the last of `_blocks`."""

    events_end = "server-sent events with names, ended by `message_stop`, or by `error`"

    def __init__(self, max_bytes: int) -> None:
        super().__init__(max_bytes)
        self.id = new_id("msg")
        self._blocks: list[Block] = []
        self._pieces: list[str] = []  # of the open block
        self._open = False
        self._thinks = False
        self._citations: list[dict[str, Any]] = []  # of the open block
        self._told: dict[str, Any] | UnsetType = UNSET

    def chat(self, body: bytes) -> bytes:
        request = self._decode(body)
        refuse_unsupported(request)
        self._model = request.model
        self._thinks = request.thinking is not None and request.thinking.type != "disabled"
        self._grounds = isinstance(request, MessagesRequest) and bool(request.knowledge)
        self.stream = isinstance(request, MessagesRequest) and bool(request.stream)
        if nested_too_deeply([request.tools, request.messages, request.output_config]):
            raise MalformedJSON("the body is nested too deeply; send a flatter JSON object")
        return encode(chat_request(request))

    def status(self, status: int) -> int:
        return anthropic_status(status)

    def refusal(self, status: int, error: dict[str, Any]) -> tuple[int, bytes]:
        return refusal(status, error)

    def failure(self, error: dict[str, Any]) -> bytes:
        code, kind = error.get("code"), error.get("type")
        if code in ("overloaded", "draining", "no_healthy_endpoint", "store_unavailable"):
            told = "overloaded_error"
        elif code == "deadline_exceeded":
            told = "timeout_error"
        elif kind in ("invalid_request_error", "rate_limit_error", "permission_error"):
            told = kind
        else:
            told = "api_error"
        return event_of("error", _error(told, error))

    def _decode(self, body: bytes) -> CountRequest:
        return decode(body, MessagesRequest)

    def _message(self) -> AnthropicMessage:
        return AnthropicMessage(id=self.id, model=self._model, content=[])

    def _emit(self, type: str, **fields: Any) -> None:
        if self.stream:
            self._out.append(event_of(type, encode(MessageEvent(type=type, **fields))))

    def _begin(self) -> None:
        # What the prompt counts is known at the end only; `message_delta` has it.
        self._emit("message_start", message=self._message())
        self._emit("ping")

    def _text(self, text: str, logprobs: list[Any] | None) -> None:  # noqa: ARG002 - this API has none
        if not self._open or self._blocks[-1].type != "text":
            self._start(Block(type="text", text="", citations=None))
        self._add(text, BlockDelta(type="text_delta", text=text))

    def _rests_on(self, grounded: Grounded) -> None:
        self._told = msgspec.to_builtins(grounded)
        if not self._open or self._blocks[-1].type != "text":
            return
        for citation in grounded.citations:
            self._citations.append(_citation(citation))
            delta = BlockDelta(type="citations_delta", citation=self._citations[-1])
            self._emit("content_block_delta", index=len(self._blocks) - 1, delta=delta)

    def _refused(self, text: str) -> None:
        self._text(text, None)

    def _reasoning(self, text: str) -> None:
        if not self._thinks:
            return
        if not self._open or self._blocks[-1].type != "thinking":
            self._start(Block(type="thinking", thinking="", signature=""))
        self._add(text, BlockDelta(type="thinking_delta", thinking=text))

    def _call(self, name: str, call_id: str) -> None:
        self._start(Block(type="tool_use", id=call_id, name=name, input={}))

    def _arguments(self, piece: str) -> None:
        self._add(piece, BlockDelta(type="input_json_delta", partial_json=piece))

    def _start(self, block: Block) -> None:
        self._close()
        self._blocks.append(block)
        self._pieces, self._open = [], True
        self._emit("content_block_start", index=len(self._blocks) - 1, content_block=block)

    def _add(self, piece: str, delta: BlockDelta) -> None:
        self._pieces.append(piece)
        self._emit("content_block_delta", index=len(self._blocks) - 1, delta=delta)

    def _close(self) -> None:
        if not self._open:
            return
        self._open = False
        if not self.stream:
            self._blocks[-1] = self._whole_block(self._blocks[-1], "".join(self._pieces))
        self._emit("content_block_stop", index=len(self._blocks) - 1)

    def _whole_block(self, block: Block, said: str) -> Block:
        match block.type:
            case "text":
                citations, self._citations = self._citations or None, []
                return replace(block, text=said, citations=citations)
            case "thinking":
                return replace(block, thinking=said)
            case "tool_use":
                given = as_object(said)
                if given is None and self._finish != "length":
                    raise EndpointFailed(f"the endpoint called {block.name!r} with arguments that are no JSON object")
                return replace(block, input=given) if given is not None else replace(block, id="")

    def _end(self) -> None:
        reason, sequence = self._stopped()
        delta = BlockDelta(stop_reason=reason, stop_sequence=sequence)
        self._emit("message_delta", delta=delta, usage=self._counted(), parkway=self._told)
        self._emit("message_stop")

    def _answer(self) -> bytes:
        reason, sequence = self._stopped()
        content = [block for block in self._blocks if block.id != ""]  # without a call that was cut off
        return encode(
            replace(
                self._message(),
                content=content,
                stop_reason=reason,
                stop_sequence=sequence,
                usage=self._counted(),
                parkway=self._told,
            )
        )

    def _stopped(self) -> tuple[StopReason, str | None]:
        """Why the answer ended, and the stop sequence that ended it, if the endpoint says which."""
        reason = _STOPS.get(self._finish or "stop", "end_turn")
        if reason == "end_turn" and self._stop is not None:
            return "stop_sequence", self._stop
        if reason == "end_turn" and any(block.type == "tool_use" for block in self._blocks):
            return "tool_use", None  # some servers end with `stop` where a certain function had to be called
        return reason, None

    def _counted(self) -> MessageUsage:
        usage = self._usage
        if usage is None:
            return MessageUsage()
        return MessageUsage(
            input_tokens=(usage.prompt_tokens or 0) - usage.cached_tokens,
            output_tokens=usage.completion_tokens or 0,
            cache_read_input_tokens=usage.cached_tokens,
        )


class CountDialect(MessagesDialect):
    """A request to count the tokens of a prompt: the endpoint reads it, writes one token, and says how many it read.

    Only the model's own server knows its tokenizer and template, and chat is the one route that every server has. What
    it has read stays in its cache for the request that usually follows.
    """

    def _decode(self, body: bytes) -> CountRequest:
        return decode(body, CountRequest)

    def _whole_block(self, block: Block, said: str) -> Block:  # noqa: ARG002 - nobody asked for the answer
        return block

    def _answer(self) -> bytes:
        if self._usage is None or self._usage.prompt_tokens is None:
            raise EndpointFailed("the endpoint does not say how many tokens it read, and nobody else can count them")
        return encode(TokenCount(input_tokens=self._usage.prompt_tokens))
