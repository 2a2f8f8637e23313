"""Any chat answer, told as a stream, is to the official clients the same as told whole."""

from __future__ import annotations

import json
import time
from typing import Any, TypeVar

import anthropic
import httpx2
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parkway.aggregate.dialects.dialect import MAX_TOOL_CALLS, Dialect
from parkway.aggregate.dialects.messages import MessagesDialect
from parkway.aggregate.dialects.responses import ResponsesDialect
from parkway.core.errors import EndpointFailed
from tests.gateway.scripts import Said

D = TypeVar("D", bound=Dialect)

texts = st.text(min_size=1, max_size=8)
objects = st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5) | st.none(), max_size=3)


@st.composite
def calls(draw: st.DrawFn) -> list[tuple[str, str, list[str]]]:
    made: list[tuple[str, str, list[str]]] = []
    for index, given_ in enumerate(draw(st.lists(objects, max_size=3))):
        arguments = json.dumps(given_, ensure_ascii=draw(st.booleans()))
        cut = draw(st.integers(0, len(arguments)))
        pieces = [piece for piece in (arguments[:cut], arguments[cut:]) if piece]
        made.append((f"call_{index}", draw(st.sampled_from(["weather", "switch"])), pieces))
    return made


answers = st.builds(
    Said,
    text=st.lists(texts, max_size=4),
    calls=calls(),
    reasoning=st.lists(texts, max_size=2),
    finish=st.sampled_from(["stop", "length", "tool_calls", "content_filter"]),
    stop_reason=st.none() | st.just("END"),
)


def asked(kind: type[D], body: dict[str, Any], max_bytes: int = 1 << 20) -> D:
    dialect = kind(max_bytes)
    dialect.id = f"{dialect.id[:4]}_fixed"
    dialect.chat(json.dumps({"model": "echo", **body}).encode())
    return dialect


def told(kind: type[Dialect], body: dict[str, Any], said: Said, cut: int) -> tuple[bytes, bytes]:
    """The same answer whole, and as the bytes of a stream; its chunks come cut at `cut`."""
    whole = asked(kind, body).whole(said.body())
    stream = asked(kind, {**body, "stream": True})
    events = said.events()
    return whole, stream.feed(events[:cut]) + stream.feed(events[cut:]) + stream.ending()


def serving(body: bytes, kind: str) -> httpx2.Client:
    def answer(_: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, content=body, headers={"content-type": kind})

    return httpx2.Client(transport=httpx2.MockTransport(answer))


def plain(value: Any) -> Any:
    """A client's object without what only its own helpers add, and without times."""
    dumped = value.model_dump()
    for block in dumped.get("content") or []:
        block.pop("parsed_output", None)
    for item in dumped.get("output") or []:
        item.pop("parsed_arguments", None)
        for part in item.get("content") or []:
            part.pop("parsed", None)
    return {key: each for key, each in dumped.items() if key not in ("created_at", "completed_at")}


@settings(max_examples=60, deadline=None)
@given(said=answers, cut=st.integers(0, 600))
def test_a_streamed_response_is_the_whole_response(said: Said, cut: int) -> None:
    whole, events = told(ResponsesDialect, {"input": "x"}, said, cut)
    with serving(whole, "application/json") as http:
        expected = openai.OpenAI(api_key="k", http_client=http).responses.create(model="echo", input="x")
    with serving(events, "text/event-stream") as http:
        stream = list(
            openai.OpenAI(api_key="k", http_client=http).responses.create(model="echo", input="x", stream=True)
        )
        ended: Any = stream[-1]
    assert plain(ended.response) == plain(expected)
    assert [event.sequence_number for event in stream] == list(range(len(stream)))
    items = [event.item.model_dump() for event in stream if event.type == "response.output_item.done"]
    assert items == [item.model_dump() for item in expected.output]
    said_so = [event.delta for event in stream if event.type == "response.output_text.delta"]
    assert "".join(said_so) == expected.output_text
    if expected.status == "completed":
        with serving(events, "text/event-stream") as http:
            client = openai.OpenAI(api_key="k", http_client=http)
            with client.responses.stream(model="echo", input="x") as helper:
                assert plain(helper.get_final_response())["output"] == plain(expected)["output"]


@settings(max_examples=60, deadline=None)
@given(said=answers, cut=st.integers(0, 600), thinking=st.booleans())
def test_a_streamed_message_is_the_whole_message(said: Said, cut: int, thinking: bool) -> None:
    hello: Any = [{"role": "user", "content": "x"}]
    body: dict[str, Any] = {"messages": hello, "max_tokens": 9}
    if thinking:
        body["thinking"] = {"type": "adaptive"}
    whole, events = told(MessagesDialect, body, said, cut)
    with serving(whole, "application/json") as http:
        expected = anthropic.Anthropic(api_key="k", http_client=http).messages.create(
            model="echo", messages=hello, max_tokens=9
        )
    with serving(events, "text/event-stream") as http:
        client = anthropic.Anthropic(api_key="k", http_client=http)
        with client.messages.stream(model="echo", messages=hello, max_tokens=9) as stream:
            assert plain(stream.get_final_message()) == plain(expected)


def chunk(**delta: Any) -> bytes:
    return b"data: " + json.dumps({"choices": [{"index": 0, "delta": delta}]}).encode() + b"\n\n"


def call(index: int | None, call_id: str | None, arguments: str) -> dict[str, Any]:
    return {"index": index, "id": call_id, "function": {"name": "f" if call_id else None, "arguments": arguments}}


def test_calls_without_an_index_are_told_apart_by_their_ids() -> None:
    stream = asked(ResponsesDialect, {"input": "x", "stream": True})
    for piece in (call(None, "a", "{"), call(None, None, "}"), call(None, "b", "[]")):
        stream.feed(chunk(tool_calls=[piece]))
    stream.settle(b"data: [DONE]\n\n")
    kept = stream.kept()
    assert kept is not None
    assert [(each["id"], each["function"]["arguments"]) for each in kept.turns[-1].tool_calls or ()] == [
        ("a", "{}"),
        ("b", "[]"),
    ]


def test_what_cannot_be_told_in_order_or_is_too_much_fails() -> None:
    stream = asked(MessagesDialect, {"messages": [{"role": "user", "content": "x"}], "max_tokens": 1, "stream": True})
    stream.feed(chunk(tool_calls=[call(0, "a", "{"), call(1, "b", "{}")]))
    with pytest.raises(EndpointFailed, match="behind another"):
        stream.feed(chunk(tool_calls=[call(0, None, "}")]))
    stream = asked(ResponsesDialect, {"input": "x", "stream": True})
    with pytest.raises(EndpointFailed, match=str(MAX_TOOL_CALLS)):
        stream.feed(chunk(tool_calls=[call(index, f"c{index}", "") for index in range(MAX_TOOL_CALLS + 1)]))
    stream = asked(ResponsesDialect, {"input": "x", "stream": True}, max_bytes=10)
    with pytest.raises(EndpointFailed, match="max_answer_bytes"):
        stream.feed(chunk(content="more than ten"))


def test_reading_the_end_ahead_changes_nothing_of_what_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 1_800_000_000.0)
    said = Said(text=["a", "b"], calls=[("c", "f", ["{}"])], finish="tool_calls")
    plainly, ahead = (asked(ResponsesDialect, {"input": "x", "stream": True}) for _ in range(2))
    expected = plainly.feed(said.events()) + plainly.ending()
    ahead.settle(said.events())
    assert ahead.kept() is not None
    assert ahead.feed(said.events()) + ahead.ending() == expected


def test_events_that_are_no_json_are_left_out() -> None:
    stream = asked(ResponsesDialect, {"input": "x", "stream": True})
    assert stream.feed(b"data: {nope\n\n: comment\n\n") == b""
    assert b"response.created" in stream.feed(chunk(content="x"))
