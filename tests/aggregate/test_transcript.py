"""Reading answers: ours, those of other servers, and bytes that are no answer at all."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parkway.aggregate.transcript import DONE, MAX_TOOL_CALLS, Transcript
from parkway.core.chat import ChatChunk, ChunkChoice, Delta
from parkway.core.completions import Completion, CompletionChoice
from parkway.core.usage import Usage
from parkway.core.wire import encode


def chunk(content: str | None = None, **changes: Any) -> bytes:
    choice: dict[str, Any] = {"index": 0, "delta": {} if content is None else {"content": content}}
    choice["finish_reason"] = changes.pop("finish_reason", None)
    return json.dumps({"id": "chatcmpl-1", "choices": [choice], **changes}).encode()


def read(*events: bytes, max_bytes: int = 1000) -> Transcript:
    transcript = Transcript(max_bytes)
    for event in events:
        transcript.event(event)
    return transcript


def test_a_streamed_chat_of_our_own() -> None:
    common: dict[str, Any] = {"id": "chatcmpl-1", "created": 1, "model": "park-mini"}
    deltas = [Delta(role="assistant", content=""), Delta(content="tar "), Delta(content="xf ä")]
    transcript = Transcript()
    seen: list[bool] = []
    for delta in deltas:
        transcript.event(encode(ChatChunk(choices=[ChunkChoice(index=0, delta=delta)], **common)))
        seen.append(transcript.first_token)
    assert seen == [False, True, True]
    assert not transcript.ended
    last = ChunkChoice(index=0, delta=Delta(), finish_reason="stop")
    transcript.event(encode(ChatChunk(choices=[last], **common)))
    assert transcript.ended
    assert not transcript.done
    transcript.event(encode(ChatChunk(choices=[], usage=Usage.of(5, 3), **common)))
    transcript.event(DONE)
    assert transcript.done
    assert transcript.response_id == "chatcmpl-1"
    assert transcript.text == "tar xf ä"
    assert transcript.finish_reason == "stop"
    assert transcript.usage == Usage.of(5, 3)
    assert transcript.message().content == "tar xf ä"
    assert (transcript.error, transcript.malformed, transcript.truncated) == (None, 0, False)


def test_a_streamed_completion_of_our_own() -> None:
    pieces = [("", None), ("a", None), ("b", "length")]
    transcript = read(
        *(
            encode(
                Completion(
                    id="cmpl-1",
                    created=1,
                    model="m",
                    choices=[CompletionChoice(index=0, text=text, finish_reason=reason)],  # pyright: ignore
                )
            )
            for text, reason in pieces
        )
    )
    assert (transcript.text, transcript.finish_reason, transcript.response_id) == ("ab", "length", "cmpl-1")
    assert transcript.first_token


@pytest.mark.parametrize(
    ("choice", "text"),
    [
        ({"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}, "hi"),
        ({"index": 0, "message": {"content": None, "refusal": "no"}, "finish_reason": "stop"}, "no"),
        ({"index": 0, "text": "hi", "finish_reason": "stop", "logprobs": None}, "hi"),
    ],
)
def test_a_whole_body(choice: dict[str, Any], text: str) -> None:
    transcript = Transcript()
    usage = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4, "completion_tokens_details": {}}
    transcript.body(json.dumps({"id": "chatcmpl-2", "choices": [choice], "usage": usage}).encode())
    assert (transcript.text, transcript.usage, transcript.ended) == (text, Usage.of(3, 1), True)


def test_embeddings_have_usage_and_no_text() -> None:
    transcript = Transcript()
    data = [{"object": "embedding", "index": 0, "embedding": [0.1] * 384}]
    transcript.body(json.dumps({"data": data, "usage": {"prompt_tokens": 9, "total_tokens": 9}}).encode())
    assert (transcript.text, transcript.usage, transcript.first_token) == ("", Usage.of(9), False)


def test_a_ranking_has_an_id_and_usage_and_no_text() -> None:
    transcript = Transcript()
    results = [{"index": 1, "relevance_score": 0.5, "document": {"text": "no answer"}}]
    usage = {"prompt_tokens": 9, "total_tokens": 9}
    transcript.body(json.dumps({"id": "rerank-1", "results": results, "usage": usage}).encode())
    assert (transcript.response_id, transcript.usage, transcript.text) == ("rerank-1", Usage.of(9), "")
    assert not transcript.first_token


def test_only_choice_0_is_the_text_but_any_choice_is_a_first_token() -> None:
    second = json.dumps({"choices": [{"index": 1, "delta": {"content": "B"}, "finish_reason": "stop"}]}).encode()
    transcript = read(second)
    assert (transcript.text, transcript.finish_reason, transcript.first_token) == ("", None, True)
    transcript.event(chunk("A"))
    assert transcript.text == "A"


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_reasoning_is_a_first_token_and_not_the_answer(field: str) -> None:
    transcript = read(json.dumps({"choices": [{"index": 0, "delta": {field: "hm"}}]}).encode())
    assert (transcript.text, transcript.first_token) == ("", True)


def test_tool_calls_come_together_from_their_pieces() -> None:
    def piece(index: int, **values: Any) -> bytes:
        return json.dumps({"choices": [{"index": 0, "delta": {"tool_calls": [{"index": index, **values}]}}]}).encode()

    transcript = read(
        piece(0, id="call_a", type="function", function={"name": "run", "arguments": ""}),
        piece(1, id="call_b", type="function", function={"name": "look", "arguments": "{}"}),
        piece(0, function={"arguments": '{"command": '}),
        piece(0, function={"arguments": '"ls"}'}),
        chunk(finish_reason="tool_calls"),
    )
    message = transcript.message()
    assert message.content is None
    assert message.tool_calls == [
        {"id": "call_a", "type": "function", "function": {"name": "run", "arguments": '{"command": "ls"}'}},
        {"id": "call_b", "type": "function", "function": {"name": "look", "arguments": "{}"}},
    ]
    assert transcript.first_token


def test_tool_calls_of_a_whole_body_have_no_index() -> None:
    calls = [{"id": str(n), "type": "function", "function": {"name": "f", "arguments": "{}"}} for n in range(2)]
    transcript = Transcript()
    transcript.body(json.dumps({"choices": [{"message": {"content": None, "tool_calls": calls}}]}).encode())
    assert transcript.message().tool_calls == calls


def test_tool_calls_are_bounded_in_number() -> None:
    calls = [{"index": n, "function": {"name": "f"}} for n in range(MAX_TOOL_CALLS + 5)]
    transcript = read(json.dumps({"choices": [{"index": 0, "delta": {"tool_calls": calls}}]}).encode())
    assert len(transcript.message().tool_calls or []) == MAX_TOOL_CALLS
    assert transcript.truncated


@pytest.mark.parametrize(
    "error", [{"message": "out of memory", "code": 500}, {"message": "x", "type": "server_error"}, "plain words"]
)
def test_an_error_inside_a_stream_that_began_well(error: Any) -> None:
    transcript = read(chunk("so"), json.dumps({"error": error}).encode())
    assert (transcript.error, transcript.text, transcript.ended) == (error, "so", False)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"\xff\xfe",
        b'"text"',
        b'{"choices": 1}',
        b'{"choices": [{"delta": {"content": 5}}]}',
        b'{"choices": [null]}',
        b'{"x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
)
def test_what_cannot_be_read_is_counted_and_the_rest_is_read(data: bytes) -> None:
    transcript = read(chunk("a"), data, chunk("b", finish_reason="stop"))
    assert (transcript.text, transcript.malformed, transcript.finish_reason) == ("ab", 1, "stop")


@pytest.mark.parametrize(
    "usage",
    [None, {}, {"prompt_tokens": None, "completion_tokens": None}],
)
def test_usage_that_says_nothing_is_none(usage: Any) -> None:
    assert read(chunk("a", usage=usage)).usage is None


@pytest.mark.parametrize("tokens", [-1, 2**31, 10**30, 1.5, "3"])
def test_usage_that_no_log_could_hold_is_malformed(tokens: Any) -> None:
    transcript = read(chunk(None, usage={"prompt_tokens": tokens, "completion_tokens": 1}))
    assert (transcript.usage, transcript.malformed) == (None, 1)


@given(st.lists(st.text(max_size=12), max_size=12), st.integers(0, 60))
def test_text_is_a_prefix_within_its_bytes(pieces: list[str], max_bytes: int) -> None:
    transcript = read(*(chunk(piece) for piece in pieces), max_bytes=max_bytes)
    whole = "".join(pieces)
    size = len(transcript.text.encode())
    assert whole.startswith(transcript.text)
    assert size <= max_bytes
    assert transcript.truncated == (len(whole.encode()) > max_bytes)
    if transcript.truncated:
        assert size > max_bytes - 4  # nothing is dropped but what does not fit: at most part of one character
    else:
        assert transcript.text == whole


@given(st.binary(max_size=200))
def test_no_bytes_stop_the_relay(data: bytes) -> None:
    transcript = read(data)
    transcript.body(data)
    assert transcript.done
