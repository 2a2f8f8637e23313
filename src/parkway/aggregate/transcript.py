"""Reading an answer on the side while its bytes are relayed: the text, the usage, how it ended.

Nothing here may stop or change the relay: what cannot be read is counted and left.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from parkway.core.chat import Message
from parkway.core.usage import Usage

DONE = b"[DONE]"

MAX_TOOL_CALLS = 128

# Bounded, because an endpoint's word goes into a 32-bit column of the log.
_Count = Annotated[int, Meta(ge=0, le=2**31 - 1)]


# Only what is needed is decoded; msgspec skips the rest. `gc=False` because these never take part in cycles.


class _PromptDetails(msgspec.Struct, gc=False):
    cached_tokens: _Count | None = None


class _Usage(msgspec.Struct, gc=False):
    prompt_tokens: _Count | None = None
    completion_tokens: _Count | None = None
    prompt_tokens_details: _PromptDetails | None = None


class _Function(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: str | None = None


class _ToolCall(msgspec.Struct, gc=False):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None


class _Words(msgspec.Struct, gc=False):
    """A message, or the part of one that a chunk brings. Reasoning goes by two names among servers."""

    content: str | None = None
    tool_calls: list[_ToolCall] | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


class _Choice(msgspec.Struct, gc=False):
    index: int = 0
    delta: _Words | None = None
    message: _Words | None = None
    text: str | None = None
    finish_reason: str | None = None


class _Answer(msgspec.Struct, gc=False):
    id: str | None = None
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: Any = None


_decode = msgspec.json.Decoder(_Answer).decode


@dataclass(slots=True)
class _Call:
    """A tool call while its pieces arrive; there can be thousands, so they are joined once, at the end."""

    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        function = {"name": self.name, "arguments": "".join(self.arguments)}
        return {"id": self.id, "type": "function", "function": function}


class Transcript:
    """What an answer said, collected event by event or from the whole body.

    Args:
        max_bytes: Text and tool arguments beyond it are not kept, and `truncated` says so; the relay is not touched.

    Attributes:
        response_id: The answer's own `id`; None until one was seen.
        finish_reason: Of choice 0; None while it runs, or if the endpoint never said.
        usage: Tokens, if the endpoint reported them.
        error: The `error` of an event or body: an endpoint can fail after it has answered 200.
        first_token: Whether anything of an answer was seen: text, reasoning, or a tool call, of any choice.
        done: Whether the stream said that it is over.
        malformed: Events that could not be read.
        pieces: Parts of answers that were seen, of all choices; most engines send a token in each.
        seen_chars: Their length: text, reasoning, and arguments of tools.
        truncated: Whether the answer was longer than `max_bytes`.
    """

    __slots__ = (
        "_left",
        "_parts",
        "_tool_calls",
        "done",
        "error",
        "finish_reason",
        "first_token",
        "malformed",
        "pieces",
        "response_id",
        "seen_chars",
        "truncated",
        "usage",
    )

    def __init__(self, max_bytes: int = 262_144) -> None:
        self._left = max_bytes
        self._parts: list[str] = []
        self._tool_calls: dict[int, _Call] = {}
        self.response_id: str | None = None
        self.finish_reason: str | None = None
        self.usage: Usage | None = None
        self.error: Any = None
        self.first_token = False
        self.done = False
        self.malformed = 0
        self.pieces = 0
        self.seen_chars = 0
        self.truncated = False

    def event(self, data: bytes) -> None:
        """Reads the data of one event of a stream: a chunk of a chat or of a text completion, or `[DONE]`."""
        if data == DONE:
            self.done = True
            return
        self._read(data)

    def body(self, data: bytes) -> None:
        """Reads a whole answer."""
        self._read(data)
        self.done = True

    @property
    def text(self) -> str:
        """The text of choice 0 so far, at most `max_bytes` of it."""
        if len(self._parts) > 1:
            self._parts = ["".join(self._parts)]
        return self._parts[0] if self._parts else ""

    @property
    def ended(self) -> bool:
        """Whether the answer came to its end; a stream that stops before was cut."""
        return self.done or self.finish_reason is not None

    def message(self) -> Message:
        """Choice 0 as the assistant's turn, to be remembered."""
        calls = [call.to_json() for _, call in sorted(self._tool_calls.items())]
        text = self.text
        return Message(role="assistant", content=text if text or not calls else None, tool_calls=calls or None)

    def _read(self, data: bytes) -> None:
        try:
            answer = _decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self.malformed += 1
            return
        if self.response_id is None:
            self.response_id = answer.id
        if answer.error is not None:
            self.error = answer.error
        if answer.usage is not None:
            self._count(answer.usage)
        if answer.choices:
            for choice in answer.choices:
                self._choose(choice)

    def _choose(self, choice: _Choice) -> None:
        words = choice.delta or choice.message
        text = choice.text if words is None else words.content or words.refusal
        calls = None if words is None else words.tool_calls
        if not self.first_token and (text or calls or (words and (words.reasoning_content or words.reasoning))):
            self.first_token = True
        self._measure(words, text)
        if choice.index:
            return
        if text:
            self._parts.append(self._fit(text))
        if calls:
            for position, call in enumerate(calls):
                self._call(position if call.index is None else call.index, call)
        if choice.finish_reason is not None:
            self.finish_reason = choice.finish_reason

    def _measure(self, words: _Words | None, text: str | None) -> None:
        """Adds what a choice says to what was seen."""
        size = len(text) if text else 0
        if words is not None:
            if reasoning := words.reasoning_content or words.reasoning:
                size += len(reasoning)
            for call in words.tool_calls or ():
                if call.function is not None:
                    size += len(call.function.name or "") + len(call.function.arguments or "")
        if size:
            self.pieces += 1
            self.seen_chars += size

    def _fit(self, text: str) -> str:
        """As much of `text` as there is room for; takes the room. Behind a piece that was cut nothing more is kept."""
        if self.truncated:
            return ""
        size = len(text) if text.isascii() else len(text.encode())
        if size > self._left:
            self.truncated = True
            return text.encode()[: self._left].decode(errors="ignore")
        self._left -= size
        return text

    def _call(self, index: int, piece: _ToolCall) -> None:
        """Adds a piece of a tool call: the first has id and name, those that follow more of the arguments."""
        call = self._tool_calls.get(index)
        if call is None:
            if len(self._tool_calls) >= MAX_TOOL_CALLS:
                self.truncated = True
                return
            call = self._tool_calls[index] = _Call()
        if piece.id and not call.id:
            call.id = self._fit(piece.id)
        if piece.function is not None:
            call.name += self._fit(piece.function.name or "")
            call.arguments.append(self._fit(piece.function.arguments or ""))

    def _count(self, usage: _Usage) -> None:
        if usage.prompt_tokens is None and usage.completion_tokens is None:
            return
        details = usage.prompt_tokens_details
        cached = None if details is None else details.cached_tokens
        self.usage = Usage.of(usage.prompt_tokens or 0, usage.completion_tokens or 0, cached_tokens=cached)
