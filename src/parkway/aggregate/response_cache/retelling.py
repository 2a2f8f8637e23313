"""One answer in two forms: whole, and as the events of a stream."""

from __future__ import annotations

from typing import Any

import msgspec

from parkway.core.sse import DONE, EventSplitter, data_of, event
from parkway.core.wire import encode

_PIECE_CHARS = 256

_GROWING = frozenset({"content", "refusal", "reasoning", "reasoning_content"})
"""Texts of which every chunk brings a piece. Of other fields the last word counts."""

_FRAME = ("id", "object", "created", "model", "system_fingerprint", "service_tier")

_decode = msgspec.json.Decoder(dict[str, Any]).decode


def whole(stream: bytes) -> dict[str, Any] | None:
    """The whole answer that was told in `stream`; None where it cannot be put together or did not come to its end."""
    found = _Whole()
    splitter = EventSplitter(max_event_bytes=len(stream) + 1)
    for block in splitter.feed(stream):
        data = data_of(block)
        if data == b"[DONE]":
            return found.answer()
        if data is not None and not found.add(data):
            return None
    return None


class _Whole:
    """An answer that is put together chunk by chunk."""

    def __init__(self) -> None:
        self._frame: dict[str, Any] = {}
        self._choices: dict[int, dict[str, Any]] = {}
        self._usage: object = None
        self._grounded: object = None

    def add(self, data: bytes) -> bool:
        """Adds a chunk; False where it cannot be part of an answer."""
        try:
            chunk = _decode(data)
            if chunk.get("error") is not None:
                return False
            for name in _FRAME:
                if chunk.get(name) is not None:
                    self._frame[name] = chunk[name]
            self._grounded = chunk.get("parkway") or self._grounded
            self._usage = chunk.get("usage") or self._usage
            return all(self._add_to(self._choice(told["index"]), told) for told in chunk.get("choices") or ())
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, KeyError, TypeError, AttributeError):
            return False

    def answer(self) -> dict[str, Any] | None:
        if not self._choices:
            return None
        is_chat = self._frame.get("object") == "chat.completion.chunk"
        frame = {**self._frame, "object": "chat.completion"} if is_chat else self._frame
        choices = [_finished(choice) for _, choice in sorted(self._choices.items())]
        more = {"usage": self._usage, "parkway": self._grounded}
        return {**frame, "choices": choices, **{name: value for name, value in more.items() if value}}

    def _choice(self, index: int) -> dict[str, Any]:
        if index not in self._choices:
            self._choices[index] = {"index": index, "finish_reason": None}
        return self._choices[index]

    @staticmethod
    def _add_to(choice: dict[str, Any], told: dict[str, Any]) -> bool:
        for name, value in told.items():
            if value is None or name == "index":
                continue
            if name == "delta":
                message = choice.setdefault("message", {"role": "assistant", "content": []})
                if not all(_grow(message, each, more) for each, more in value.items()):
                    return False
            elif name == "text":
                choice.setdefault("text", []).append(value)
            elif name == "logprobs":
                logprobs = choice.setdefault("logprobs", {})
                for each, more in value.items():
                    if isinstance(more, list):
                        logprobs.setdefault(each, []).extend(more)
            else:
                choice[name] = value
        return True


def _grow(message: dict[str, Any], name: str, more: Any) -> bool:
    """Adds a field of a delta to the message; False for a kind of field that is not known to grow."""
    if more is None:
        return True
    if name in _GROWING and isinstance(more, str):
        message.setdefault(name, []).append(more)
    elif name == "annotations" and isinstance(more, list):
        message.setdefault(name, []).extend(more)
    elif name == "tool_calls":
        calls = message.setdefault(name, {})
        for position, piece in enumerate(more):
            call = calls.setdefault(piece.get("index", position), {"type": "function", "function": {"arguments": []}})
            if piece.get("id"):
                call["id"] = piece["id"]
            function = piece.get("function") or {}
            if function.get("name"):
                call["function"]["name"] = function["name"]
            if function.get("arguments"):
                call["function"]["arguments"].append(function["arguments"])
    elif isinstance(more, str):
        message[name] = more
    else:
        return False
    return True


def _finished(choice: dict[str, Any]) -> dict[str, Any]:
    """A choice with its pieces joined."""
    if "text" in choice:
        return {**choice, "text": "".join(choice["text"]), "logprobs": choice.get("logprobs")}
    message: dict[str, Any] = dict(choice.get("message") or {"role": "assistant", "content": []})
    for name in _GROWING & message.keys():
        message[name] = "".join(message[name])
    if "tool_calls" in message:
        calls: list[dict[str, Any]] = [call for _, call in sorted(message["tool_calls"].items())]
        for call in calls:
            call["function"]["arguments"] = "".join(call["function"]["arguments"])
        message |= {"tool_calls": calls, "content": message["content"] or None}
    elif "refusal" in message:
        message["content"] = message["content"] or None
    return {**choice, "message": message, "logprobs": choice.get("logprobs")}


def events(body: bytes, *, usage: bool) -> bytes:
    """A whole answer as the events of a stream, `[DONE]` included, as OpenAI streams it.

    Args:
        usage: The client asked for the token counts, which then stand in the last event.
    """
    answer = _decode(body)
    frame = {name: answer[name] for name in _FRAME if name in answer}
    if frame.get("object") == "chat.completion":
        frame["object"] = "chat.completion.chunk"
    unsaid = {"usage": None} if usage else {}
    grounded = {"parkway": answer["parkway"]} if "parkway" in answer else {}
    told = [
        event(encode({**frame, "choices": [piece], **unsaid, **(grounded if _annotates(piece) else {})}))
        for choice in answer.get("choices") or ()
        for piece in _pieces(choice)
    ]
    if usage:
        told.append(event(encode({**frame, "choices": [], "usage": answer.get("usage")})))
    return b"".join(told) + DONE


def _annotates(piece: dict[str, Any]) -> bool:
    return piece["index"] == 0 and "annotations" in piece.get("delta", ())


def _pieces(choice: dict[str, Any]) -> list[dict[str, Any]]:
    """What the chunks say of one choice, in order."""
    last = {name: value for name, value in choice.items() if name not in ("message", "text", "logprobs")}
    first = {"index": choice["index"], "finish_reason": None, "logprobs": None}
    logprobs = choice.get("logprobs")
    if "message" not in choice:
        pieces = [{**first, "text": piece} for piece in _cut(choice.get("text") or "")]
        if logprobs is not None:
            (pieces or [last])[0]["logprobs"] = logprobs
        return [*pieces, {"text": "", "logprobs": None, **last}]
    message = choice["message"]
    pieces: list[dict[str, Any]] = [{**first, "delta": {"role": message.get("role", "assistant"), "content": ""}}]
    for name in ("reasoning_content", "reasoning", "content", "refusal"):
        said = [{**first, "delta": {name: piece}} for piece in _cut(message.get(name) or "")]
        if name == "content" and logprobs is not None:
            (said or pieces)[0]["logprobs"] = logprobs
        pieces += said
    calls = message.get("tool_calls") or ()
    pieces += [{**first, "delta": {"tool_calls": [{"index": at, **call}]}} for at, call in enumerate(calls)]
    if "annotations" in message:
        pieces.append({**first, "delta": {"annotations": message["annotations"]}})
    return [*pieces, {"delta": {}, "logprobs": None, **last}]


def _cut(text: str) -> list[str]:
    return [text[start : start + _PIECE_CHARS] for start in range(0, len(text), _PIECE_CHARS)]
