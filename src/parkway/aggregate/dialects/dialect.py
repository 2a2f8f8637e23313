"""What every dialect does: chat requests made, chat answers retold piece by piece, errors told in its own form."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import msgspec

from parkway.aggregate.dialects.chat_answer import CallPiece, ChatAnswer, ChatChoice, ChatUsage, Words, read
from parkway.aggregate.responses import KeptResponse
from parkway.core.chat import Message
from parkway.core.errors import EndpointFailed
from parkway.core.grounding import Grounded
from parkway.core.sse import EventSplitter, data_of
from parkway.core.wire import encode

MAX_TOOL_CALLS = 128

_DONE = b"[DONE]"

# The interpreter's limit counts levels of JSON and calls together; what was read just below it could not be written.
_LEVELS_TO_SPARE = 64


class Dialect(ABC):
    """One request in another protocol, from its body to the last byte of its answer.

    The order of calls is `chat`; then either `feed` for each piece of a chat stream and `ending` when nothing follows,
    or `whole` for an answer in one piece. Either may be cut short by `refusal` (nothing was sent yet) or `failure`.
    What is fed twice behind the end of a stream is read once, so that the end can be read before it is sent.

    Args:
        max_bytes: Of the text, reasoning and arguments of an answer; one that is longer raises `EndpointFailed`.

    Attributes:
        id: The answer's id.
        stream: The client wants events.
        previous_id: The answer that the request goes on from.
        shortens: A history that is too long for the model may lose its oldest turns.
        failed: OpenAI's error object, once one came in the stream.
    """

    events_end = ""
    """How a stream ends, in words, for the OpenAPI document."""

    def __init__(self, max_bytes: int) -> None:
        self.id = ""
        self.stream = False
        self.previous_id: str | None = None
        self.shortens = False
        self.failed: dict[str, Any] | None = None
        self._left = max_bytes
        self._out: list[bytes] = []
        self._splitter = EventSplitter()
        self._began = False
        self._over = False
        self._calls: dict[int, str] = {}  # position of a call in the chat answer -> its id
        self._finish: str | None = None
        self._stop: str | None = None
        self._usage: ChatUsage | None = None
        self._grounds = False  # the request names collections; only then is `parkway` of an answer our own

    @abstractmethod
    def chat(self, body: bytes) -> bytes:
        """The request as the body of a chat request.

        Raises:
            MalformedJSON, InvalidRequest, UnsupportedField: It is none, or asks for what is not there.
        """

    @abstractmethod
    def refusal(self, status: int, error: dict[str, Any]) -> tuple[int, bytes]:
        """Status and body of an error that is the whole answer; `error` is OpenAI's error object."""

    @abstractmethod
    def failure(self, error: dict[str, Any]) -> bytes:
        """The last events of a stream that failed."""

    def kept(self) -> KeptResponse | None:
        """What the server is to keep of an answer whose end was read, if anything."""
        return None

    def redacted(self, messages: list[Message]) -> None:  # noqa: B027 - a dialect that keeps nothing has nothing to forget
        """The chat request had these messages in the end: the same ones, with other words. `kept` gives those."""

    def not_kept(self) -> None:  # noqa: B027 - a dialect that keeps nothing has nothing to say
        """What `kept` gave was not kept; the answer has to say so."""

    def status(self, status: int) -> int:
        """The HTTP status for an error whose own is `status`."""
        return status

    def feed(self, data: bytes) -> bytes:
        """Reads whole events of a chat stream; returns the events that they become.

        Raises:
            EndpointFailed: The answer is longer than may be, or its calls of tools cannot be told apart.
        """
        self._read_events(data)
        return self._take()

    def settle(self, data: bytes) -> None:
        """Reads the end of an answer ahead of its being sent: `kept` is whole, `feed` or `whole` still tell it all."""
        if self.stream:
            self._read_events(data)
            self._begin_once()
            self._close()
        else:
            self._read_whole(data)

    def ending(self) -> bytes:
        """The last events of a stream that did not fail."""
        self._begin_once()
        self._close()
        self._end()
        return self._take()

    def whole(self, body: bytes) -> bytes:
        """A whole answer. Raises like `feed`."""
        self._read_whole(body)
        return self._answer()

    @abstractmethod
    def _begin(self) -> None:
        """The first events."""

    @abstractmethod
    def _text(self, text: str, logprobs: list[Any] | None) -> None: ...

    @abstractmethod
    def _rests_on(self, grounded: Grounded) -> None:
        """What the text that was said rests on."""

    @abstractmethod
    def _reasoning(self, text: str) -> None: ...

    @abstractmethod
    def _refused(self, text: str) -> None: ...

    @abstractmethod
    def _call(self, name: str, call_id: str) -> None:
        """A call of a tool begins."""

    @abstractmethod
    def _arguments(self, piece: str) -> None:
        """More of the arguments of the call that began last."""

    @abstractmethod
    def _close(self) -> None:
        """Nothing more comes of what is said or called now."""

    @abstractmethod
    def _end(self) -> None:
        """The last events."""

    @abstractmethod
    def _answer(self) -> bytes:
        """The whole answer, read."""

    def _take(self) -> bytes:
        out = b"".join(self._out)
        self._out.clear()
        return out

    def _begin_once(self) -> None:
        if not self._began:
            self._began = True
            self._begin()

    def _read_events(self, data: bytes) -> None:
        for block in self._splitter.feed(data):
            event = data_of(block)
            if event == _DONE:
                self._over = True
            elif event is not None and self.failed is None and (answer := read(event)) is not None:
                if answer.error is not None:
                    self.failed = _error_object(answer.error)
                elif not self._over:
                    self._begin_once()
                    self._take_in(answer)

    def _read_whole(self, body: bytes) -> None:
        if self._over:
            return
        self._over = True
        answer = read(body)
        if answer is None or not answer.choices:
            raise EndpointFailed("the endpoint answered with something that is not an answer to a chat")
        self._began = True
        self._take_in(answer)
        self._close()
        self._out.clear()

    def _take_in(self, answer: ChatAnswer) -> None:
        if answer.usage is not None:
            self._usage = answer.usage
        for choice in answer.choices or ():
            if choice.index == 0:
                self._choose(choice)
        if self._grounds and answer.parkway is not None:
            self._rests_on(msgspec.convert(answer.parkway, Grounded))

    def _choose(self, choice: ChatChoice) -> None:
        words = choice.delta or choice.message
        if words is not None:
            logprobs = choice.logprobs.content if choice.logprobs is not None else None
            self._say(words, logprobs)
        if choice.finish_reason is not None:
            self._finish = choice.finish_reason
        if isinstance(choice.stop_reason, str):
            self._stop = choice.stop_reason

    def _say(self, words: Words, logprobs: list[Any] | None) -> None:
        if reasoning := words.reasoning_content or words.reasoning:
            self._fit(reasoning)
            self._reasoning(reasoning)
        if words.content:
            self._fit(words.content)
            self._text(words.content, logprobs)
        if words.refusal:
            self._fit(words.refusal)
            self._refused(words.refusal)
        for position, piece in enumerate(words.tool_calls or ()):
            self._call_piece(position, piece)

    def _call_piece(self, position: int, piece: CallPiece) -> None:
        """Calls come one after the other; what belongs together says so by `index`, or by the order in a message."""
        if piece.index is not None:
            index = piece.index
        elif piece.id and piece.id not in self._calls.values():
            index = max(self._calls, default=-1) + 1
        else:
            index = max(self._calls, default=position)
        name = piece.function.name or "" if piece.function else ""
        arguments = piece.function.arguments or "" if piece.function else ""
        self._fit(name)
        self._fit(arguments)
        if index not in self._calls:
            if len(self._calls) >= MAX_TOOL_CALLS:
                raise EndpointFailed(f"the endpoint's answer calls more than {MAX_TOOL_CALLS} tools")
            call_id = piece.id or f"call_{self.id.rpartition('_')[2]}_{len(self._calls)}"
            self._calls[index] = call_id
            self._call(name, call_id)
        elif arguments and index != next(reversed(self._calls)):
            raise EndpointFailed("the endpoint's answer goes on with a call of a tool behind another one")
        if arguments:
            self._arguments(arguments)

    def _fit(self, text: str) -> None:
        self._left -= len(text) if text.isascii() else len(text.encode())
        if self._left < 0:
            raise EndpointFailed("the endpoint's answer is longer than bounds.max_answer_bytes allows")


def nested_too_deeply(value: object) -> bool:
    """Whether `value` is so deep that it cannot be told again, within other objects and from other places."""
    for _ in range(_LEVELS_TO_SPARE):
        value = [value]
    try:
        encode(value)
    except RecursionError:
        return True
    return False


def _error_object(error: Any) -> dict[str, Any]:
    return error if isinstance(error, dict) else {"message": str(error)[:2000]}


def event_of(name: str, encoded: bytes) -> bytes:
    """A server-sent event with its name."""
    return b"event: " + name.encode() + b"\ndata: " + encoded + b"\n\n"


def as_object(arguments: str) -> dict[str, Any] | None:
    """The arguments of a call as a JSON object; None where they are none."""
    try:
        value = msgspec.json.decode(arguments or "{}")
    except (msgspec.DecodeError, RecursionError):
        return None
    return value if isinstance(value, dict) and not nested_too_deeply(value) else None
