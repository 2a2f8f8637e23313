"""`/v1/messages` with the official client: whole, streamed, with tools and images, refused, broken, counted."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import pytest
from aiohttp import web

from parkway.launch.settings import Settings
from tests.gateway.conftest import Gate, StartGate
from tests.gateway.scripts import Said, says
from tests.gateway.test_chat import until
from tests.gateway.upstream import chunk

HELLO: Any = [{"role": "user", "content": "one two"}]
WEATHER: Any = {
    "name": "weather",
    "description": "The weather of a city",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
CALLS = Said(
    text=["let me ", "see"],
    calls=[("call_1", "weather", ['{"city":', ' "Oslo"}']), ("call_2", "weather", [])],
    finish="tool_calls",
)


@pytest.fixture
async def client(gate: Gate) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(base_url=gate.url, api_key=gate.key, max_retries=0) as client:
        yield client


def sent(gate: Gate) -> list[dict[str, Any]]:
    """The messages of the last request to the endpoint."""
    messages = gate.upstream.bodies[-1]["messages"]
    assert isinstance(messages, list)
    return messages


async def ask(client: anthropic.AsyncAnthropic, stream: bool, **request: Any) -> anthropic.types.Message:
    request = {"model": "echo", "max_tokens": 64, "messages": HELLO, **request}
    if not stream:
        return await client.messages.create(**request)
    async with client.messages.stream(**request) as events:
        return await events.get_final_message()


async def test_text_in_text_out(gate: Gate, client: anthropic.AsyncAnthropic) -> None:
    answer = await client.messages.create(
        model="echo",
        max_tokens=20,
        messages=HELLO,
        system=[{"type": "text", "text": "be brief", "cache_control": {"type": "ephemeral"}}],
        stop_sequences=["END"],
        extra_body={"temperature": 0.5, "top_p": 0.9, "top_k": 3},
        metadata={"user_id": "ada"},
    )
    assert [block.text for block in answer.content if block.type == "text"] == ["one two"]
    assert (answer.role, answer.model, answer.stop_reason, answer.stop_sequence) == (
        "assistant",
        "echo",
        "end_turn",
        None,
    )
    assert answer.id.startswith("msg_")
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (5, 3)
    assert gate.upstream.bodies[-1] == {
        "model": "echo",
        "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "one two"}],
        "max_tokens": 20,
        "stop": ["END"],
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 3,
        "user": "ada",
    }
    await until(gate.logged, "the request is in the log")
    (entry,) = gate.logged()
    assert (entry["surface"], entry["response_id"], entry["outcome"]) == ("messages", answer.id, "ok")


async def test_the_sequence_of_events(gate: Gate, client: anthropic.AsyncAnthropic) -> None:
    gate.upstream.script = says(gate.upstream, CALLS)
    body = {"model": "echo", "max_tokens": 64, "messages": HELLO, "tools": [WEATHER], "stream": True}
    response = await gate.post("/v1/messages", body)
    assert response.content_type == "text/event-stream"
    blocks = [block.split("\n") for block in (await response.text()).split("\n\n") if block]
    names = [name.removeprefix("event: ") for name, _ in blocks]
    assert names == [
        "message_start",
        "ping",
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "content_block_start",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    data = [json.loads(line.removeprefix("data: ")) for _, line in blocks]
    assert [each["type"] for each in data] == names
    assert [each["index"] for each in data if "index" in each] == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2]
    assert data[7]["delta"] == {"type": "input_json_delta", "partial_json": '{"city":'}
    assert data[-2]["delta"] == {"stop_reason": "tool_use", "stop_sequence": None}
    assert data[-2]["usage"]["output_tokens"] == 7
    await until(gate.logged, "the request is in the log")
    assert (gate.logged()[0]["stream"], gate.logged()[0]["completion_tokens"]) == (True, 7)


@pytest.mark.parametrize("stream", [False, True])
async def test_calls_and_what_came_of_them(gate: Gate, client: anthropic.AsyncAnthropic, stream: bool) -> None:
    gate.upstream.script = says(gate.upstream, CALLS)
    choice: Any = {"type": "any", "disable_parallel_tool_use": True}
    first = await ask(client, stream, tools=[WEATHER], tool_choice=choice)
    assert first.stop_reason == "tool_use"
    assert [block.type for block in first.content] == ["text", "tool_use", "tool_use"]
    called = first.content[1]
    assert called.type == "tool_use"
    assert (called.id, called.name, called.input) == ("call_1", "weather", {"city": "Oslo"})
    assert (first.usage.input_tokens, first.usage.cache_read_input_tokens, first.usage.output_tokens) == (7, 4, 7)
    body: Any = gate.upstream.bodies[-1]
    assert (body["tool_choice"], body["parallel_tool_calls"]) == ("required", False)
    function = {"name": "weather", "parameters": WEATHER["input_schema"], "description": "The weather of a city"}
    assert body["tools"] == [{"type": "function", "function": function}]
    gate.upstream.script = gate.upstream.echo
    results: Any = [
        {"type": "tool_result", "tool_use_id": "call_1", "content": "cold"},
        {
            "type": "tool_result",
            "tool_use_id": "call_2",
            "is_error": True,
            "content": [
                {"type": "text", "text": "no such city"},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA=="}},
            ],
        },
        {"type": "text", "text": "well?"},
    ]
    answered = {"role": "assistant", "content": [block.model_dump() for block in first.content]}
    turns = [*HELLO, answered, {"role": "user", "content": results}]
    await ask(client, stream, messages=turns, tools=[WEATHER], tool_choice={"type": "tool", "name": "weather"})
    assert gate.upstream.bodies[-1]["tool_choice"] == {"type": "function", "function": {"name": "weather"}}
    assert sent(gate)[1:] == [
        {
            "role": "assistant",
            "content": "let me see",
            "tool_calls": [
                {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Oslo"}'}},
                {"id": "call_2", "type": "function", "function": {"name": "weather", "arguments": "{}"}},
            ],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "cold"},
        {"role": "tool", "tool_call_id": "call_2", "content": "Error: no such city"},
        {
            "role": "user",
            "content": [
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
                {"type": "text", "text": "well?"},
            ],
        },
    ]


STOPS: list[tuple[Said, str, str | None]] = [
    (Said(text=["a"]), "end_turn", None),
    (Said(text=["a"], finish="length"), "max_tokens", None),
    (Said(text=["a"], stop_reason="END"), "stop_sequence", "END"),
    (Said(text=["a"], finish="content_filter"), "refusal", None),
    (Said(calls=[("c", "weather", ["{}"])]), "tool_use", None),
    (Said(refusal=["no"]), "end_turn", None),
    (Said(), "end_turn", None),
]


@pytest.mark.parametrize("stream", [False, True])
async def test_why_an_answer_stopped(gate: Gate, client: anthropic.AsyncAnthropic, stream: bool) -> None:
    for said, reason, sequence in STOPS:
        gate.upstream.script = says(gate.upstream, said)
        answer = await ask(client, stream, tools=[WEATHER], stop_sequences=["END"])
        assert (answer.stop_reason, answer.stop_sequence) == (reason, sequence)


@pytest.mark.parametrize("stream", [False, True])
async def test_thinking_is_shown_to_whom_asked_for_it(
    gate: Gate, client: anthropic.AsyncAnthropic, stream: bool
) -> None:
    gate.upstream.script = says(gate.upstream, Said(text=["hi"], reasoning=["I ", "think"]))
    answer = await ask(client, stream, thinking={"type": "adaptive"})
    assert [block.type for block in answer.content] == ["thinking", "text"]
    assert answer.content[0].thinking == "I think"  # pyright: ignore
    edits: Any = {"context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]}}
    again = [*HELLO, {"role": "assistant", "content": [block.model_dump() for block in answer.content]}, *HELLO]
    answer = await ask(client, stream, messages=again, extra_body=edits)
    assert [block.type for block in answer.content] == ["text"]
    assert sent(gate)[1] == {"role": "assistant", "content": "hi"}


@pytest.mark.parametrize("stream", [False, True])
async def test_a_call_that_was_cut_off(gate: Gate, client: anthropic.AsyncAnthropic, stream: bool) -> None:
    cut = Said(text=["a"], calls=[("c", "weather", ['{"city": "Os'])], finish="length")
    gate.upstream.script = says(gate.upstream, cut)
    answer = await ask(client, stream, tools=[WEATHER])
    assert answer.stop_reason == "max_tokens"
    assert [block.type for block in answer.content] == ["text", "tool_use"][: 1 + stream]


async def test_arguments_that_are_no_json_are_no_answer(gate: Gate, client: anthropic.AsyncAnthropic) -> None:
    gate.upstream.script = says(gate.upstream, Said(calls=[("c", "weather", ["[1]"])], finish="tool_calls"))
    with pytest.raises(anthropic.InternalServerError, match="no JSON object") as failed:
        await ask(client, False, tools=[WEATHER])
    assert failed.value.status_code == 502


async def test_structured_output(gate: Gate, client: anthropic.AsyncAnthropic) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    config: Any = {"format": {"type": "json_schema", "schema": schema}, "effort": "low"}
    await ask(client, False, output_config=config)
    body = gate.upstream.bodies[-1]
    assert body["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": schema, "strict": True},
    }
    assert body["reasoning_effort"] == "low"


async def test_tokens_are_counted_by_the_endpoint(gate: Gate, client: anthropic.AsyncAnthropic) -> None:
    count = await client.messages.count_tokens(model="echo", messages=HELLO, system="be brief", tools=[WEATHER])
    assert count.input_tokens == 5
    assert gate.upstream.bodies[-1]["max_tokens"] == 1
    gate.upstream.script = says(gate.upstream, Said(calls=[("c", "weather", ["{"])], finish="tool_calls"))
    assert (await client.messages.count_tokens(model="echo", messages=HELLO, tools=[WEATHER])).input_tokens == 11

    async def mute(_: web.Request) -> web.StreamResponse:
        return web.json_response({"choices": [{"index": 0, "message": {"content": "x"}, "finish_reason": "length"}]})

    gate.upstream.script = mute
    with pytest.raises(anthropic.InternalServerError, match="how many tokens"):
        await client.messages.count_tokens(model="echo", messages=HELLO)


def block(**fields: object) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [fields]}]


BAD: list[tuple[dict[str, Any], str]] = [
    ({"max_tokens": None}, "max_tokens"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"temperature": 1.5}, "temperature"),
    ({"messages": []}, "messages"),
    ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role"),
    ({"messages": [*HELLO, {"role": "assistant", "content": "The answer is"}]}, "end with a message of the user"),
    ({"messages": block(type="document", source={"type": "text"})}, "messages.0.content.0.type"),
    ({"messages": block(type="image", source={"type": "file"})}, "messages.0.content.0.source"),
    ({"messages": block(type="tool_result", content="x")}, "messages.0.content.0.tool_use_id"),
    ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools.0.type"),
    ({"tools": [{"name": "x"}]}, "tools.0.input_schema"),
    ({"tool_choice": {"type": "tool"}, "tools": [WEATHER]}, "tool_choice.name"),
    ({"mcp_servers": [{"name": "x"}]}, "mcp_servers"),
    ({"context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]}}, "context_management"),
    ({"context_management": {"edits": 5}}, "context_management"),
    ({"nonsense": 1}, "nonsense"),
    ({"stop_sequences": ["x"] * 100}, "stop"),
]


async def test_bad_requests_are_answered_by_name(gate: Gate) -> None:
    for fields, told in BAD:
        body = {"model": "echo", "max_tokens": 5, "messages": HELLO, **fields}
        response = await gate.post("/v1/messages", {key: value for key, value in body.items() if value is not None})
        answer = await response.json()
        assert (response.status, answer["type"], answer["error"]["type"]) == (400, "error", "invalid_request_error")
        assert told in answer["error"]["message"]
        assert set(answer) == {"type", "error", "request_id"}
        assert set(answer["error"]) == {"type", "message"}
        assert answer["request_id"] == response.headers["request-id"] == response.headers["x-request-id"]
    assert gate.upstream.bodies == []


async def test_errors_are_the_clients_own_classes(gate: Gate, client: anthropic.AsyncAnthropic) -> None:
    with pytest.raises(anthropic.NotFoundError, match="Did you mean") as missing:
        await client.messages.create(model="ecko", max_tokens=5, messages=HELLO)
    assert missing.value.type == "not_found_error"
    assert missing.value.request_id is not None
    with pytest.raises(anthropic.AuthenticationError):
        await client.with_options(api_key="pk-wrong").messages.create(model="echo", max_tokens=5, messages=HELLO)
    with pytest.raises(anthropic.BadRequestError):
        await client.messages.create(model="echo", max_tokens=0, messages=HELLO)


async def error_of(response: Any) -> tuple[int, str]:
    answer = await response.json()
    assert answer["type"] == "error"
    assert answer["request_id"] == response.headers["request-id"]
    return response.status, answer["error"]["type"]


async def test_every_error_has_this_form(start_gate: StartGate) -> None:
    settings = Settings.model_validate({"models": {}, "limits": {"rate_per_s": 0.1, "burst": 4}})
    body = {"model": "echo", "max_tokens": 5, "messages": HELLO}
    async with start_gate(settings) as gate:
        url = f"{gate.url}/v1/messages"
        for headers in ({}, {"x-api-key": "pk-wrong"}, {"x-api-key": gate.key, "authorization": "Bearer no"}):
            async with gate.http.post(url, data=b"{nope", headers=headers) as response:
                assert await error_of(response) == (401, "authentication_error")
        keyed = {"x-api-key": gate.key, "anthropic-version": "2023-06-01"}
        async with gate.http.post(url, data=b"{nope", headers=keyed) as response:
            assert await error_of(response) == (400, "invalid_request_error")
        async with gate.http.post(url, data=b"x" * 5_000_000, headers=keyed) as response:
            assert await error_of(response) == (413, "request_too_large")
        async with gate.http.get(url, headers=keyed) as response:
            assert await error_of(response) == (405, "invalid_request_error")
        async with gate.http.post(f"{url}/batches", json={}, headers=keyed) as response:
            assert await error_of(response) == (404, "not_found_error")
        wrong = {**keyed, "x-parkway-timeout-s": "soon"}
        async with gate.http.post(url, json=body, headers=wrong) as response:
            assert await error_of(response) == (400, "invalid_request_error")
        async with gate.http.post(url, json=body, headers=keyed) as response:
            assert response.status == 200
        async with gate.http.post(f"{url}/count_tokens", json={"model": "echo"}, headers=keyed) as response:
            assert await error_of(response) == (400, "invalid_request_error")
        async with gate.http.post(url, json=body, headers=keyed) as response:
            assert await error_of(response) == (429, "rate_limit_error")
            assert int(response.headers["retry-after"]) >= 1
        gate.readiness.draining = True
        async with gate.http.post(url, json=body, headers=keyed) as response:
            assert await error_of(response) == (529, "overloaded_error")


REFUSALS = [
    (400, 400, "invalid_request_error"),
    (429, 429, "rate_limit_error"),
    (500, 502, "api_error"),
    (401, 502, "api_error"),
]


@pytest.mark.parametrize("stream", [False, True])
async def test_what_an_endpoint_refuses(gate: Gate, stream: bool) -> None:
    for status, told, kind in REFUSALS:

        async def refuses(_: web.Request, status: int = status) -> web.StreamResponse:
            return web.json_response({"error": {"message": "because"}}, status=status)

        gate.upstream.script = refuses
        body = {"model": "echo", "max_tokens": 5, "messages": HELLO, "stream": stream}
        assert await error_of(await gate.post("/v1/messages", body)) == (told, kind)


async def test_a_stream_that_breaks_ends_with_an_error(gate: Gate, client: anthropic.AsyncAnthropic) -> None:
    async def breaks(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(chunk("half "))
        assert request.transport is not None
        request.transport.close()
        return response

    gate.upstream.script = breaks
    with pytest.raises(anthropic.APIStatusError) as broken:
        await ask(client, stream=True)
    assert broken.value.type == "api_error"
    assert "before the end of its answer" in broken.value.message
    await until(gate.logged, "the request is in the log")
    assert gate.logged()[0]["outcome"] == "stream_interrupted"


async def test_an_error_inside_a_stream_is_told_in_this_form(gate: Gate) -> None:
    async def fails(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        error = {"error": {"message": "full", "type": "server_error", "code": "overloaded"}}
        await response.write(chunk("half ") + b"data: " + json.dumps(error).encode() + b"\n\n")
        return response

    gate.upstream.script = fails
    body = {"model": "echo", "max_tokens": 5, "messages": HELLO, "stream": True}
    told = (await (await gate.post("/v1/messages", body)).text()).rstrip().split("\n\n")[-1].split("\n")
    assert told[0] == "event: error"
    assert json.loads(told[1].removeprefix("data: "))["error"] == {"type": "overloaded_error", "message": "full"}


async def test_a_client_that_leaves_frees_the_endpoint(gate: Gate) -> None:
    asked = asyncio.Event()

    async def hangs(_: web.Request) -> web.StreamResponse:
        asked.set()
        await asyncio.sleep(60)
        raise AssertionError("not reached")

    gate.upstream.script = hangs
    request = asyncio.ensure_future(
        gate.post("/v1/messages", {"model": "echo", "max_tokens": 5, "messages": HELLO, "stream": True})
    )
    await asked.wait()
    request.cancel()
    await asyncio.wait_for(gate.upstream.cut_off.wait(), 10)
    await until(gate.logged, "the request is in the log")
    assert (gate.logged()[0]["outcome"], gate.logged()[0]["surface"]) == ("cancelled", "messages")
