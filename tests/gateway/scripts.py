"""Chat answers for dialects to tell: one message, sent whole or cut into chunks, over the scripted endpoint."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.gateway.upstream import Handler, Upstream

USAGE = {
    "prompt_tokens": 11,
    "completion_tokens": 7,
    "total_tokens": 18,
    "prompt_tokens_details": {"cached_tokens": 4},
    "completion_tokens_details": {"reasoning_tokens": 2},
}


@dataclass(frozen=True)
class Said:
    """What a scripted endpoint answers; each text is given in the pieces that a stream sends."""

    text: Sequence[str] = ()
    calls: Sequence[tuple[str, str, Sequence[str]]] = ()
    """Id, name, and the arguments in pieces."""
    reasoning: Sequence[str] = ()
    refusal: Sequence[str] = ()
    finish: str = "stop"
    stop_reason: str | None = None
    logprobs: list[dict[str, Any]] = field(default_factory=list)

    def message(self) -> dict[str, Any]:
        calls = [
            {"id": call_id, "type": "function", "function": {"name": name, "arguments": "".join(arguments)}}
            for call_id, name, arguments in self.calls
        ]
        message: dict[str, Any] = {"role": "assistant", "content": "".join(self.text) or None}
        if calls:
            message["tool_calls"] = calls
        if self.reasoning:
            message["reasoning_content"] = "".join(self.reasoning)
        if self.refusal:
            message["refusal"] = "".join(self.refusal)
        return message

    def choice(self) -> dict[str, Any]:
        choice: dict[str, Any] = {"index": 0, "message": self.message(), "finish_reason": self.finish}
        if self.stop_reason is not None:
            choice["stop_reason"] = self.stop_reason
        if self.logprobs:
            choice["logprobs"] = {"content": self.logprobs}
        return choice

    def deltas(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
        found += [{"reasoning_content": piece} for piece in self.reasoning]
        found += [{"content": piece} for piece in self.text]
        found += [{"refusal": piece} for piece in self.refusal]
        for index, (call_id, name, arguments) in enumerate(self.calls):
            first = {"index": index, "id": call_id, "type": "function", "function": {"name": name, "arguments": ""}}
            found.append({"tool_calls": [first]})
            found += [{"tool_calls": [{"index": index, "function": {"arguments": each}}]} for each in arguments]
        return found

    def events(self) -> bytes:
        chunks = [[{"index": 0, "delta": delta, "finish_reason": None}] for delta in self.deltas()]
        if self.logprobs:
            first = next(choices[0] for choices in chunks if choices[0]["delta"].get("content"))
            first["logprobs"] = {"content": self.logprobs}
        last: dict[str, Any] = {"index": 0, "delta": {}, "finish_reason": self.finish}
        if self.stop_reason is not None:
            last["stop_reason"] = self.stop_reason
        chunks.append([last])
        told = [{**_frame("chat.completion.chunk"), "choices": choices} for choices in chunks]
        told.append({**_frame("chat.completion.chunk"), "choices": [], "usage": USAGE})
        return b"".join(b"data: " + json.dumps(each).encode() + b"\n\n" for each in told) + b"data: [DONE]\n\n"

    def body(self) -> bytes:
        return json.dumps({**_frame("chat.completion"), "choices": [self.choice()], "usage": USAGE}).encode()


def _frame(kind: str) -> dict[str, Any]:
    return {"id": "chatcmpl-up", "object": kind, "created": 1, "model": "echo"}


def says(upstream: Upstream, said: Said) -> Handler:
    """A script for the endpoint: the same answer to everything, streamed where it is asked to be."""

    async def script(request: web.Request) -> web.StreamResponse:
        if not upstream.bodies[-1].get("stream"):
            return web.Response(body=said.body(), content_type="application/json")
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(said.events())
        return response

    return script
