"""OpenAI's Responses API as a dialect: items, parts and their events, numbered."""

from __future__ import annotations

import time
from typing import Any

import msgspec
from msgspec.structs import replace

from parkway.aggregate.dialects.dialect import Dialect, event_of, nested_too_deeply
from parkway.aggregate.dialects.responses_request import chat_request, refuse_unsupported, turns_of
from parkway.aggregate.responses import KeptResponse
from parkway.core.chat import Message
from parkway.core.errors import MalformedJSON
from parkway.core.grounding import Citation, Grounded
from parkway.core.ids import new_id
from parkway.core.responses import (
    IncompleteDetails,
    InputTokensDetails,
    OutputItem,
    OutputPart,
    OutputTokensDetails,
    ReasoningConfig,
    Response,
    ResponseEvent,
    ResponseFailure,
    ResponseRequest,
    ResponseUsage,
    TextConfig,
    TextFormat,
)
from parkway.core.wire import decode, encode

_INCOMPLETE = {"length": IncompleteDetails(reason="max_output_tokens"),
               "content_filter": IncompleteDetails(reason="content_filter")}  # fmt: skip


class ResponsesDialect(Dialect):
    """One request for a response.

    Items follow one another: the one that is open is the last of `_items`, and so is the part that is open in it.
    """

    events_end = "server-sent events with names, ended by `response.completed`, `.incomplete` or `.failed`"

    def __init__(self, max_bytes: int) -> None:
        super().__init__(max_bytes)
        self.id = new_id("resp")
        self._sequence = 0
        self._turns: list[Message] = []
        self._items: list[OutputItem] = []
        self._parts: list[OutputPart] = []  # of the open message or reasoning
        self._pieces: list[str] = []  # of the open part, or of the arguments of the open call
        self._annotations: list[dict[str, Any]] = []  # of the open part
        self._logprobs: list[Any] | None = None
        self._open = False

    def chat(self, body: bytes) -> bytes:
        request = decode(body, ResponseRequest)
        refuse_unsupported(request)
        self._request = request
        self._turns = turns_of(request.input)
        self._grounds = bool(request.knowledge)
        self.stream = bool(request.stream)
        self.previous_id = request.previous_response_id
        self.shortens = request.truncation == "auto"
        self._response = self._blank(request)
        if nested_too_deeply([request.tools, request.tool_choice, request.text]):
            raise MalformedJSON("the body is nested too deeply; send a flatter JSON object")
        chat = encode(chat_request(request, self._turns))
        self._logprobs = [] if b'"logprobs":true' in chat else None
        return chat

    def kept(self) -> KeptResponse | None:
        if self._request.store is False:
            return None
        response = self._finished()
        return KeptResponse(
            response_id=self.id,
            previous_id=self.previous_id,
            model=self._request.model,
            turns=[*self._turns, _turn_of(response.output)],
            body=encode(response),
            created_ms=self._response.created_at * 1000,
        )

    def redacted(self, messages: list[Message]) -> None:
        before = len(messages) - len(self._turns)
        self._turns = messages[before:]
        if before and self._response.instructions is not None:
            self._response.instructions = messages[0].text()

    def not_kept(self) -> None:
        self._response.store = False

    def refusal(self, status: int, error: dict[str, Any]) -> tuple[int, bytes]:
        return status, encode({"error": error})

    def failure(self, error: dict[str, Any]) -> bytes:
        self._begin_once()
        message = str(error.get("message") or "the answer failed")
        code = error.get("code")
        self._emit("error", code=None if code is None else str(code), message=message, param=error.get("param"))
        limited = code == "rate_limit_exceeded"
        failed = ResponseFailure(code="rate_limit_exceeded" if limited else "server_error", message=message)
        output = [replace(item, status="incomplete") if item.status == "in_progress" else item for item in self._items]
        self._emit("response.failed", response=replace(self._response, status="failed", error=failed, output=output))
        return self._take()

    def _blank(self, request: ResponseRequest) -> Response:
        """The response as far as the request alone tells it."""
        reasoning = request.reasoning or ReasoningConfig()
        return Response(
            id=self.id,
            created_at=int(time.time()),
            model=request.model,
            status="in_progress",
            output=[],
            tools=[_echoed(tool) for tool in request.tools or ()],
            tool_choice="auto" if request.tool_choice is None else request.tool_choice,
            parallel_tool_calls=request.parallel_tool_calls is not False,
            instructions=request.instructions,
            max_output_tokens=request.max_output_tokens,
            max_tool_calls=request.max_tool_calls,
            metadata=request.metadata or {},
            previous_response_id=request.previous_response_id,
            prompt_cache_key=request.prompt_cache_key,
            reasoning=reasoning,
            safety_identifier=request.safety_identifier,
            service_tier=request.service_tier,
            store=request.store is not False,
            temperature=request.temperature,
            text=TextConfig(format=(request.text and request.text.format) or TextFormat(type="text")),
            top_logprobs=request.top_logprobs,
            top_p=request.top_p,
            truncation=request.truncation or "disabled",
            user=request.user,
        )

    def _finished(self) -> Response:
        incomplete = _INCOMPLETE.get(self._finish or "")
        status = "completed" if incomplete is None else "incomplete"
        nothing = [_part("output_text", "")]
        return replace(
            self._response,
            status=status,
            completed_at=int(time.time()) if incomplete is None else None,
            incomplete_details=incomplete,
            output=[*self._items] or [_message(self._item_id("msg"), status, nothing)],
            usage=self._counted(),
        )

    def _counted(self) -> ResponseUsage | None:
        usage = self._usage
        if usage is None:
            return None
        read, written = usage.prompt_tokens or 0, usage.completion_tokens or 0
        return ResponseUsage(
            input_tokens=read,
            output_tokens=written,
            total_tokens=read + written,
            input_tokens_details=InputTokensDetails(cached_tokens=usage.cached_tokens),
            output_tokens_details=OutputTokensDetails(reasoning_tokens=usage.reasoning_tokens),
        )

    def _emit(self, type: str, **fields: Any) -> None:
        if self.stream:
            event = ResponseEvent(type=type, sequence_number=self._sequence, **fields)
            self._sequence += 1
            self._out.append(event_of(type, encode(event)))

    def _begin(self) -> None:
        self._emit("response.created", response=self._response)
        self._emit("response.in_progress", response=self._response)

    def _text(self, text: str, logprobs: list[Any] | None) -> None:
        self._open_part("message", "output_text")
        self._pieces.append(text)
        if self._logprobs is not None and logprobs:
            self._logprobs.extend(logprobs)
        self._emit("response.output_text.delta", **self._where(), delta=text, logprobs=logprobs or [])

    def _rests_on(self, grounded: Grounded) -> None:
        self._response.parkway = msgspec.to_builtins(grounded)
        if not self._open or self._items[-1].type != "message" or self._parts[-1].type != "output_text":
            return
        for index, citation in enumerate(grounded.citations):
            annotation = _annotation(citation)
            self._annotations.append(annotation)
            self._emit(
                "response.output_text.annotation.added",
                **self._where(),
                annotation=annotation,
                annotation_index=index,
            )

    def _refused(self, text: str) -> None:
        self._open_part("message", "refusal")
        self._pieces.append(text)
        self._emit("response.refusal.delta", **self._where(), delta=text)

    def _reasoning(self, text: str) -> None:
        self._open_part("reasoning", "reasoning_text")
        self._pieces.append(text)
        self._emit("response.reasoning_text.delta", **self._where(), delta=text)

    def _call(self, name: str, call_id: str) -> None:
        self._close()
        self._add(
            OutputItem(
                id=self._item_id("fc"),
                type="function_call",
                status="in_progress",
                call_id=call_id,
                name=name,
                arguments="",
            )
        )

    def _arguments(self, piece: str) -> None:
        self._pieces.append(piece)
        self._emit("response.function_call_arguments.delta", **self._where(), delta=piece)

    def _close(self) -> None:
        if not self._open:
            return
        item = self._items[-1]
        status = "incomplete" if self._finish in _INCOMPLETE else "completed"
        if item.type == "function_call":
            arguments = self._said()
            self._emit(
                "response.function_call_arguments.done", **self._where(), name=item.name or "", arguments=arguments
            )
            item = replace(item, status=status, arguments=arguments)
        else:
            self._close_part()
            item = replace(item, status=status, content=self._parts)
        self._items[-1] = item
        self._open = False
        self._emit("response.output_item.done", output_index=len(self._items) - 1, item=item)

    def _end(self) -> None:
        if not self._items:
            self._open_part("message", "output_text")
            self._close()
        response = self._finished()
        self._emit(f"response.{response.status}", response=response)

    def _answer(self) -> bytes:
        return encode(self._finished())

    def _add(self, item: OutputItem) -> None:
        self._items.append(item)
        self._parts, self._pieces, self._open = [], [], True
        self._emit("response.output_item.added", output_index=len(self._items) - 1, item=item)

    def _open_part(self, item: str, part: str) -> None:
        """Sees that a part of this type in an item of this type is open, as the last of all."""
        if not self._open or self._items[-1].type != item:
            self._close()
            if item == "message":
                self._add(_message(self._item_id("msg"), "in_progress", []))
            else:
                self._add(
                    OutputItem(id=self._item_id("rs"), type="reasoning", status="in_progress", summary=[], content=[])
                )
        elif self._parts[-1].type == part:
            return
        else:
            self._close_part()
        self._pieces = []
        self._parts.append(_part(part, ""))
        self._emit("response.content_part.added", **self._where(), part=self._parts[-1])

    def _close_part(self) -> None:
        text, part = self._said(), self._parts[-1]
        done = _part(part.type, text)
        if part.type == "output_text":
            done.annotations, self._annotations = self._annotations, []
            done.logprobs, self._logprobs = self._logprobs or [], None if self._logprobs is None else []
            self._emit("response.output_text.done", **self._where(), text=text, logprobs=done.logprobs)
        elif part.type == "refusal":
            self._emit("response.refusal.done", **self._where(), refusal=text)
        else:
            self._emit("response.reasoning_text.done", **self._where(), text=text)
        self._parts[-1] = done
        self._emit("response.content_part.done", **self._where(), part=done)

    def _said(self) -> str:
        return "".join(self._pieces)

    def _where(self) -> dict[str, Any]:
        """What an event is about: the open item, and the open part of it if it has parts."""
        where: dict[str, Any] = {"item_id": self._items[-1].id, "output_index": len(self._items) - 1}
        if self._items[-1].type != "function_call":
            where["content_index"] = len(self._parts) - 1
        return where

    def _item_id(self, prefix: str) -> str:
        return f"{prefix}_{self.id.removeprefix('resp_')}_{len(self._items)}"


def _message(item_id: str, status: Any, content: list[OutputPart]) -> OutputItem:
    return OutputItem(id=item_id, type="message", status=status, role="assistant", content=content)


def _part(type: Any, text: str) -> OutputPart:
    if type == "output_text":
        return OutputPart(type=type, text=text, annotations=[], logprobs=[])
    return OutputPart(type=type, refusal=text) if type == "refusal" else OutputPart(type=type, text=text)


def _annotation(citation: Citation) -> dict[str, Any]:
    """A citation as this API has it: of an address, or of a file that has none."""
    name = citation.title or citation.uri or citation.document_id
    if citation.url == citation.uri:
        place = {"start_index": citation.marker_start, "end_index": citation.marker_end}
        return {"type": "url_citation", "url": citation.url, "title": name, **place}
    return {
        "type": "file_citation",
        "file_id": citation.document_id,
        "filename": name,
        "index": citation.marker_end,
    }


def _echoed(tool: dict[str, Any]) -> dict[str, Any]:
    """A function as answers show it: every field of it, given or not."""
    return {"description": None, "parameters": None, "strict": None, **tool}


def _turn_of(output: list[OutputItem]) -> Message:
    """An answer as the assistant's turn, as a chat endpoint is shown it next time: without calls that were cut off."""
    parts = [part for item in output if item.type == "message" for part in item.content or ()]
    text = "".join(part.text or "" for part in parts if part.type == "output_text")
    refused = "".join(part.refusal or "" for part in parts if part.type == "refusal")
    calls = [
        {"id": item.call_id, "type": "function", "function": {"name": item.name, "arguments": item.arguments}}
        for item in output
        if item.type == "function_call" and item.status == "completed"
    ]
    content = text if text or not (calls or refused) else None
    return Message(role="assistant", content=content, refusal=refused or None, tool_calls=calls or None)
