"""Whole answers and streams are two forms of one thing."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from parkway.aggregate.response_cache.retelling import events, whole
from parkway.core.sse import DONE, EventSplitter, data_of
from tests.gateway.scripts import Said

TEXT = st.text(st.characters(codec="utf-8"), max_size=600)
CALL = st.tuples(st.text("abc_", min_size=1, max_size=9), st.text("fgh", min_size=1, max_size=9), TEXT)


def told(stream: bytes) -> list[dict[str, Any]]:
    blocks = EventSplitter().feed(stream)
    assert data_of(blocks[-1]) == b"[DONE]"
    return [json.loads(data_of(block) or b"") for block in blocks[:-1]]


@given(TEXT, TEXT, st.lists(CALL, max_size=3), st.sampled_from(["stop", "length", "tool_calls"]), st.booleans())
@settings(max_examples=60, deadline=None)
def test_an_answer_survives_both_ways(
    text: str, reasoning: str, calls: list[tuple[str, str, str]], finish: str, usage: bool
) -> None:
    message: dict[str, Any] = {"role": "assistant", "content": text}
    if reasoning:
        message["reasoning_content"] = reasoning
    if calls:
        message["content"] = text or None
        message["tool_calls"] = [
            {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
            for call_id, name, arguments in calls
        ]
    answer: dict[str, Any] = {
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m",
        "choices": [
            {"index": 0, "message": message, "finish_reason": finish, "logprobs": None},
            {"index": 1, "message": {"role": "assistant", "content": "b"}, "finish_reason": "stop", "logprobs": None},
        ],
    }  # fmt: skip
    counted = {**answer, "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}}
    stream = events(json.dumps(counted).encode(), usage=usage)
    assert whole(stream) == (counted if usage else answer)
    assert all(chunk["object"] == "chat.completion.chunk" for chunk in told(stream))


def test_logprobs_and_stop_reason_are_kept() -> None:
    logprobs: list[dict[str, Any]] = [{"token": "a", "logprob": -1.0, "bytes": [97], "top_logprobs": []}]
    found = whole(Said(text=["a", "b"], logprobs=logprobs, stop_reason="END").events())
    assert found is not None
    (choice,) = found["choices"]
    assert (choice["logprobs"], choice["stop_reason"]) == ({"content": logprobs}, "END")
    assert whole(events(json.dumps(found).encode(), usage=True)) == found


def test_text_completions() -> None:
    choice = {"index": 0, "text": "ab" * 400, "finish_reason": "stop", "logprobs": None}
    answer = {"id": "c", "object": "text_completion", "created": 1, "model": "m", "choices": [choice]}
    assert whole(events(json.dumps(answer).encode(), usage=False)) == answer


def test_what_is_no_whole_answer_is_none() -> None:
    stream = Said(text=["a"]).events()
    assert whole(stream) is not None
    for broken in (
        b"", DONE, stream.removesuffix(DONE), b'data: {"error": {"message": "x"}}\n\n' + stream,
        b"data: {\n\n" + stream,
        b'data: {"choices": [{"index": 0, "delta": {"audio": {"data": "x"}}}]}\n\n' + stream,
        b'data: {"choices": [{"delta": {"content": "x"}}]}\n\n' + stream, b"data: []\n\n" + stream,
        b'data: {"choices": [{"index": 0, "delta": {"tool_calls": ["x"]}}]}\n\n' + stream,
    ):  # fmt: skip
        assert whole(broken) is None
