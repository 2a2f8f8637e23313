"""`/v1/responses` with the official client: whole, streamed, with tools, continued, kept, refused, broken."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from aiohttp import web
from openai.types.responses import ResponseStreamEvent

from parkway.core.errors import StoreUnavailable
from parkway.launch.settings import Settings
from tests.gateway.conftest import Gate, StartGate
from tests.gateway.scripts import Said, says
from tests.gateway.test_chat import until
from tests.gateway.upstream import chunk

WEATHER: Any = {
    "type": "function",
    "name": "weather",
    "description": "The weather of a city",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    "strict": True,
}
CALLS = Said(
    text=["let me ", "see"],
    calls=[("call_1", "weather", ['{"city":', ' "Oslo"}']), ("call_2", "weather", ['{"city": "Rome"}'])],
    finish="tool_calls",
)


@pytest.fixture
async def client(gate: Gate) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{gate.url}/v1", api_key=gate.key, max_retries=0) as client:
        yield client


def sent(gate: Gate) -> list[dict[str, Any]]:
    """The messages of the last request to the endpoint."""
    messages = gate.upstream.bodies[-1]["messages"]
    assert isinstance(messages, list)
    return messages


async def streamed(client: openai.AsyncOpenAI, **request: Any) -> list[ResponseStreamEvent]:
    stream = await client.responses.create(model="echo", stream=True, **request)
    return [event async for event in stream]


async def test_text_in_text_out(gate: Gate, client: openai.AsyncOpenAI) -> None:
    answer = await client.responses.create(
        model="echo",
        input="one two",
        instructions="be brief",
        max_output_tokens=20,
        temperature=0.5,
        top_p=0.9,
        metadata={"run": "7"},
        user="ada",
    )
    assert (answer.output_text, answer.status, answer.object) == ("one two", "completed", "response")
    assert answer.id.startswith("resp_")
    assert answer.usage is not None
    assert (answer.usage.input_tokens, answer.usage.output_tokens, answer.usage.total_tokens) == (5, 3, 8)
    assert (answer.instructions, answer.metadata, answer.max_output_tokens) == ("be brief", {"run": "7"}, 20)
    assert gate.upstream.bodies[-1] == {
        "model": "echo",
        "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "one two"}],
        "max_tokens": 20,
        "temperature": 0.5,
        "top_p": 0.9,
        "user": "ada",
    }
    await until(gate.logged, "the request is in the log")
    (entry,) = gate.logged()
    assert (entry["surface"], entry["response_id"], entry["outcome"]) == ("responses", answer.id, "ok")
    liked = await gate.post("/v1/feedback", {"request_id": answer.id, "thumb": "up"})
    assert liked.status == 201


async def test_the_sequence_of_events_of_a_text(gate: Gate, client: openai.AsyncOpenAI) -> None:
    events = await streamed(client, input="a b")
    assert [event.type for event in events] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert [event.sequence_number for event in events] == list(range(10))
    assert events[6].type == "response.output_text.done"
    assert events[6].text == "a b "
    last = events[-1]
    assert last.type == "response.completed"
    assert last.response.output_text == "a b "
    assert last.response.usage is not None
    await until(gate.logged, "the request is in the log")
    (entry,) = gate.logged()
    assert (entry["stream"], entry["prompt_tokens"], entry["response_id"]) == (True, 5, last.response.id)
    assert entry["first_token_ms"] is not None


async def test_the_sequence_of_events_of_calls(gate: Gate, client: openai.AsyncOpenAI) -> None:
    gate.upstream.script = says(gate.upstream, CALLS)
    events = await streamed(client, input="weather?", tools=[WEATHER], parallel_tool_calls=True)
    call = [
        "response.output_item.added",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.output_item.done",
    ]
    assert [event.type for event in events][9:] == [*call[:2], *call[1:], *call, "response.completed"]
    last = events[-1]
    assert last.type == "response.completed"
    kinds = [item.type for item in last.response.output]
    assert kinds == ["message", "function_call", "function_call"]
    called = last.response.output[1]
    assert called.type == "function_call"
    assert (called.call_id, called.name, called.arguments) == ("call_1", "weather", '{"city": "Oslo"}')


async def test_the_clients_own_helper_follows_a_stream(gate: Gate, client: openai.AsyncOpenAI) -> None:
    gate.upstream.script = says(gate.upstream, CALLS)
    async with client.responses.stream(model="echo", input="weather?", tools=[WEATHER]) as stream:
        async for _ in stream:
            pass
        final = await stream.get_final_response()
    assert [item.type for item in final.output] == ["message", "function_call", "function_call"]
    assert final.output[1].parsed_arguments == {"city": "Oslo"}  # pyright: ignore


async def test_tools_reach_the_endpoint_and_their_answers_too(gate: Gate, client: openai.AsyncOpenAI) -> None:
    gate.upstream.script = says(gate.upstream, CALLS)
    first = await client.responses.create(
        model="echo",
        input="weather?",
        tools=[WEATHER],
        tool_choice={"type": "function", "name": "weather"},
        store=False,
    )
    body = gate.upstream.bodies[-1]
    assert body["tools"] == [
        {"type": "function", "function": {key: WEATHER[key] for key in ("name", "description", "parameters", "strict")}}
    ]
    assert body["tool_choice"] == {"type": "function", "function": {"name": "weather"}}
    gate.upstream.script = gate.upstream.echo
    items: Any = [
        {"role": "user", "content": "weather?"},
        *(item.model_dump(exclude_none=True) for item in first.output),
        {"type": "function_call_output", "call_id": "call_1", "output": "cold"},
        {"type": "function_call_output", "call_id": "call_2", "output": [{"type": "input_text", "text": "warm"}]},
    ]
    second = await client.responses.create(model="echo", input=items, tools=[WEATHER], parallel_tool_calls=False)
    assert second.output_text == "warm"
    assert gate.upstream.bodies[-1]["parallel_tool_calls"] is False
    roles = [message["role"] for message in sent(gate)]
    assert roles == ["user", "assistant", "tool", "tool"]
    assert sent(gate)[1]["content"] == "let me see"
    assert [call["id"] for call in sent(gate)[1]["tool_calls"]] == ["call_1", "call_2"]
    assert sent(gate)[2] == {"role": "tool", "tool_call_id": "call_1", "content": "cold"}


async def test_allowed_tools_are_the_only_ones_that_the_endpoint_sees(gate: Gate, client: openai.AsyncOpenAI) -> None:
    choice: Any = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "weather"}]}
    other: Any = {"type": "function", "name": "other", "parameters": {"type": "object"}, "strict": False}
    await client.responses.create(model="echo", input="x", tools=[other, WEATHER], tool_choice=choice)
    body: Any = gate.upstream.bodies[-1]
    assert [tool["function"]["name"] for tool in body["tools"]] == ["weather"]
    assert body["tool_choice"] == "required"


async def test_forms_of_text(gate: Gate, client: openai.AsyncOpenAI) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    form: Any = {"type": "json_schema", "name": "thing", "schema": schema, "strict": True}
    answer = await client.responses.create(model="echo", input="x", text={"format": form})
    assert gate.upstream.bodies[-1]["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "thing", "schema": schema, "strict": True},
    }
    assert answer.text is not None
    assert answer.text.format is not None
    assert answer.text.format.type == "json_schema"
    await client.responses.create(model="echo", input="x", text={"format": {"type": "json_object"}})
    assert gate.upstream.bodies[-1]["response_format"] == {"type": "json_object"}


async def test_images_reasoning_and_log_probabilities(gate: Gate, client: openai.AsyncOpenAI) -> None:
    one = {"token": "hi", "logprob": -0.5, "bytes": [104, 105], "top_logprobs": []}
    gate.upstream.script = says(gate.upstream, Said(text=["hi"], reasoning=["I ", "think"], logprobs=[one]))
    items: Any = [
        {"type": "reasoning", "id": "rs_1", "summary": []},
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "what is it"},
                {"type": "input_image", "image_url": "data:image/png;base64,AA==", "detail": "low"},
            ],
        },
    ]
    include: Any = ["message.output_text.logprobs", "reasoning.encrypted_content"]
    for stream in (False, True):
        asked: dict[str, Any] = {"input": items, "include": include, "reasoning": {"effort": "low"}}
        if stream:
            last = (await streamed(client, **asked))[-1]
            assert last.type == "response.completed"
            answer = last.response
        else:
            answer = await client.responses.create(model="echo", **asked)
        thought, said = answer.output
        assert thought.type == "reasoning"
        assert thought.content is not None
        assert thought.content[0].text == "I think"
        assert said.type == "message"
        assert said.content[0].type == "output_text"
        assert said.content[0].logprobs is not None
        assert said.content[0].logprobs[0].logprob == -0.5
    body: Any = gate.upstream.bodies[-1]
    assert body["messages"][0]["content"][1]["image_url"] == {"url": "data:image/png;base64,AA==", "detail": "low"}
    assert (body["logprobs"], body["reasoning_effort"]) == (True, "low")


async def test_an_answer_that_was_cut_off_is_incomplete(gate: Gate, client: openai.AsyncOpenAI) -> None:
    for finish, reason in (("length", "max_output_tokens"), ("content_filter", "content_filter")):
        gate.upstream.script = says(gate.upstream, Said(text=["half "], finish=finish))
        last = (await streamed(client, input="x"))[-1]
        assert last.type == "response.incomplete"
        whole = await client.responses.create(model="echo", input="x")
        for answer in (last.response, whole):
            assert answer.status == "incomplete"
            assert answer.incomplete_details is not None
            assert answer.incomplete_details.reason == reason
            assert answer.output[0].status == "incomplete"  # pyright: ignore


async def test_a_refusal_is_a_part_of_its_own(gate: Gate, client: openai.AsyncOpenAI) -> None:
    gate.upstream.script = says(gate.upstream, Said(refusal=["I will ", "not"]))
    events = await streamed(client, input="x")
    assert [event.type for event in events if "refusal" in event.type] == [
        "response.refusal.delta",
        "response.refusal.delta",
        "response.refusal.done",
    ]
    last = events[-1]
    assert last.type == "response.completed"
    assert last.response.output[0].content[0].refusal == "I will not"  # pyright: ignore


async def test_a_chain_and_its_branches(gate: Gate, client: openai.AsyncOpenAI) -> None:
    first = await client.responses.create(model="echo", input="one", instructions="be brief")
    streaming = await streamed(client, input="two", previous_response_id=first.id, instructions="be long")
    assert [(message["role"], message["content"]) for message in sent(gate)] == [
        ("system", "be long"),
        ("user", "one"),
        ("assistant", "one"),
        ("user", "two"),
    ]
    last = streaming[-1]
    assert last.type == "response.completed"
    assert last.response.previous_response_id == first.id
    await client.responses.create(model="echo", input="three", previous_response_id=last.response.id)
    assert [message["content"] for message in sent(gate)] == ["one", "one", "two", "two ", "three"]
    await client.responses.create(model="echo", input="other", previous_response_id=first.id)
    assert [message["content"] for message in sent(gate)] == ["one", "one", "other"]


async def test_a_call_is_answered_by_the_id_of_the_response_alone(gate: Gate, client: openai.AsyncOpenAI) -> None:
    gate.upstream.script = says(gate.upstream, CALLS)
    first = await client.responses.create(model="echo", input="weather?", tools=[WEATHER])
    gate.upstream.script = gate.upstream.echo
    results: Any = [
        {"type": "function_call_output", "call_id": call_id, "output": "cold"} for call_id in ("call_1", "call_2")
    ]
    await client.responses.create(model="echo", input=results, previous_response_id=first.id, tools=[WEATHER])
    assert [message["role"] for message in sent(gate)] == ["user", "assistant", "tool", "tool"]
    assert sent(gate)[1]["tool_calls"][1]["function"] == {"name": "weather", "arguments": '{"city": "Rome"}'}


async def test_a_kept_response_is_shown_listed_and_deleted(gate: Gate, client: openai.AsyncOpenAI) -> None:
    items: Any = [
        {"role": "developer", "content": "rules"},
        {"role": "user", "content": [{"type": "input_text", "text": "hello"}]},
        {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "cold"},
    ]
    answer = await client.responses.create(model="echo", input=items)
    assert (await client.responses.retrieve(answer.id)) == answer
    listed = [item async for item in client.responses.input_items.list(answer.id, limit=3)]
    assert [item.type for item in listed] == ["function_call_output", "function_call", "message", "message"]
    page = await client.responses.input_items.list(answer.id, order="asc", limit=1)
    assert page.has_next_page()
    assert page.data[0].content[0].text == "rules"  # pyright: ignore
    await client.responses.delete(answer.id)
    for missing in (answer.id, "resp_unknown", "x" * 300, "a%00b"):
        assert (await gate.get(f"/v1/responses/{missing}")).status == 404
    with pytest.raises(openai.NotFoundError):
        await client.responses.input_items.list(answer.id)
    with pytest.raises(openai.BadRequestError) as gone:
        await client.responses.create(model="echo", input="x", previous_response_id=answer.id)
    assert (gone.value.code, gone.value.param) == ("previous_response_not_found", "previous_response_id")


async def test_what_is_not_stored_is_not_there(gate: Gate, client: openai.AsyncOpenAI) -> None:
    first = await client.responses.create(model="echo", input="one")
    answer = await client.responses.create(model="echo", input="x", store=False, previous_response_id=first.id)
    assert len(sent(gate)) == 3
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve(answer.id)
    with pytest.raises(openai.BadRequestError, match="not found"):
        await client.responses.create(model="echo", input="x", previous_response_id=answer.id)


async def test_another_keys_response_is_not_there(gate: Gate, client: openai.AsyncOpenAI) -> None:
    mine = await client.responses.create(model="echo", input="secret")
    other = gate.new_key("other")
    for _ in range(100):  # the gateway sees the new key within a watch's interval
        if (await gate.get("/v1/models", key=other)).status == 200:
            break
        await asyncio.sleep(0.02)
    assert (await gate.get(f"/v1/responses/{mine.id}", key=other)).status == 404
    body = {"model": "echo", "input": "x", "previous_response_id": mine.id}
    refused = await gate.post("/v1/responses", body, key=other)
    assert (await refused.json())["error"]["code"] == "previous_response_not_found"
    url = f"{gate.url}/v1/responses/{mine.id}"
    async with gate.http.delete(url, headers=gate.headers(other)) as deleted:
        assert deleted.status == 404
    assert (await client.responses.retrieve(mine.id)).output_text == "secret"


async def test_the_bounds_of_a_chain(start_gate: StartGate) -> None:
    settings = Settings.model_validate({"models": {}, "responses": {"max_chain": 2, "max_bytes": 6000}})
    async with start_gate(settings) as gate:

        async def ask(text: str, **fields: object) -> dict[str, Any]:
            answer = await gate.post("/v1/responses", {"model": "echo", "input": text, **fields})
            return await answer.json()

        previous = None
        for turn in range(2):
            previous = (await ask(f"turn {turn}", previous_response_id=previous))["id"]
        third = await ask("turn 2", previous_response_id=previous)
        assert "id" in third
        refused = await ask("turn 3", previous_response_id=third["id"])
        assert "responses.max_chain" in refused["error"]["message"]
        large = await ask("y" * 1550)
        assert large["store"] is True
        second = await ask("y" * 1550, previous_response_id=large["id"])
        full = await ask("z", previous_response_id=second["id"])
        assert "responses.max_bytes" in full["error"]["message"]
        huge = await ask("y" * 6000)
        assert huge["store"] is False
        assert (await gate.get(f"/v1/responses/{huge['id']}")).status == 404


async def test_a_context_that_is_too_small(gate: Gate, client: openai.AsyncOpenAI) -> None:
    async def small(request: web.Request) -> web.StreamResponse:
        if len(sent(gate)) > 4:
            error = {"message": "too long", "type": "invalid_request_error", "code": "context_length_exceeded"}
            return web.json_response({"error": error}, status=400)
        return await gate.upstream.echo(request)

    gate.upstream.script = small
    previous = openai.omit
    for turn in range(2):
        previous = (await client.responses.create(model="echo", input=f"{turn}", previous_response_id=previous)).id
    with pytest.raises(openai.BadRequestError) as long:
        await client.responses.create(model="echo", input="2", previous_response_id=previous)
    assert long.value.code == "context_length_exceeded"
    await client.responses.create(model="echo", input="2", previous_response_id=previous, truncation="auto")
    assert [message["content"] for message in sent(gate)] == ["1", "1", "2"]


BAD: list[tuple[dict[str, Any], str, str]] = [
    ({"input": 5}, "invalid_request", "input"),
    ({"input": []}, "invalid_request", "input"),
    ({"input": [{"role": "user"}]}, "invalid_request", "input.0.content"),
    ({"input": [{"type": "function_call", "name": "x"}]}, "invalid_request", "input.0.call_id"),
    ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "unsupported_field", "input.0.type"),
    (
        {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]},
        "unsupported_field",
        "input.0.content.0.type",
    ),
    ({"tools": [{"type": "web_search"}]}, "unsupported_field", "tools.0.type"),
    ({"tools": [{"type": "function"}]}, "invalid_request", "tools.0.name"),
    ({"tool_choice": {"type": "mcp"}}, "unsupported_field", "tool_choice"),
    ({"tool_choice": {"type": "allowed_tools", "tools": [{"name": []}]}}, "invalid_request", "tool_choice"),
    ({"tool_choice": "perhaps"}, "invalid_request", "tool_choice"),
    ({"background": True}, "unsupported_field", "background"),
    ({"conversation": "conv_1"}, "unsupported_field", "conversation"),
    ({"prompt": {"id": "p"}}, "unsupported_field", "prompt"),
    ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "invalid_request", "text.format.schema"),
    ({"text": {"verbosity": "low"}}, "unsupported_field", "text.verbosity"),
    ({"temperature": 9}, "invalid_request", "temperature"),
    ({"metadata": {"k": "v" * 513}}, "invalid_request", "metadata...."),
    ({"previous_response_id": "resp_nope"}, "previous_response_not_found", "previous_response_id"),
    ({"previous_response_id": "../x"}, "previous_response_not_found", "previous_response_id"),
    ({"input": [{"role": "user", "content": "x"}] * 3000}, "invalid_request", "messages"),
    ({"nonsense": 1}, "invalid_request", "nonsense"),
]


async def test_bad_requests_are_answered_by_name(gate: Gate) -> None:
    for fields, code, param in BAD:
        response = await gate.post("/v1/responses", {"model": "echo", "input": "x", **fields})
        error = (await response.json())["error"]
        assert (response.status, error["code"], error["param"]) == (400, code, param), error
        assert error["request_id"] == response.headers["x-request-id"]
    assert gate.upstream.bodies == []


async def test_what_could_be_read_and_not_written_again_is_refused(gate: Gate) -> None:
    nested = b'{"a":' * 920 + b"1" + b"}" * 920
    tools = {
        "/v1/responses": b'"input": "x", "stream": true, '
        b'"tools": [{"type": "function", "name": "f", "parameters": %b}]',
        "/v1/messages": b'"max_tokens": 1, "messages": [{"role": "user", "content": "x"}], '
        b'"tools": [{"name": "f", "input_schema": %b}]',
    }
    for path, fields in tools.items():
        body = b'{"model": "echo", ' + fields % nested + b"}"
        async with gate.http.post(gate.url + path, data=body, headers=gate.headers()) as response:
            assert response.status == 400
            assert "nested too deeply" in (await response.json())["error"]["message"]


async def test_errors_are_the_clients_own_classes(gate: Gate, client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match='Did you mean "echo"'):
        await client.responses.create(model="ecko", input="x")
    with pytest.raises(openai.AuthenticationError):
        await client.with_options(api_key="pk-wrong").responses.create(model="echo", input="x")


async def test_a_stream_that_breaks_ends_as_failed(gate: Gate, client: openai.AsyncOpenAI) -> None:
    async def breaks(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(chunk("half "))
        assert request.transport is not None
        request.transport.close()
        return response

    gate.upstream.script = breaks
    events = await streamed(client, input="x")
    error, last = events[-2:]
    assert error.type == "error"
    assert error.code == "stream_interrupted"
    assert last.type == "response.failed"
    assert last.response.error is not None
    assert (last.response.status, last.response.error.code) == ("failed", "server_error")
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert (await gate.get(f"/v1/responses/{last.response.id}")).status == 404
    await until(gate.logged, "the request is in the log")
    assert gate.logged()[0]["outcome"] == "stream_interrupted"


async def test_an_error_inside_a_stream_is_told_in_this_form(gate: Gate, client: openai.AsyncOpenAI) -> None:
    async def fails(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(chunk("half ") + b'data: {"error": {"message": "out of memory"}}\n\n')
        return response

    gate.upstream.script = fails
    events = await streamed(client, input="x")
    assert [event.type for event in events[-2:]] == ["error", "response.failed"]
    assert events[-2].message == "out of memory"  # pyright: ignore


@pytest.mark.parametrize("stream", [False, True])
async def test_a_store_that_is_away_when_the_answer_is_there(
    gate: Gate, client: openai.AsyncOpenAI, stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object, **__: object) -> None:
        raise StoreUnavailable("away", retry_after_s=1)

    monkeypatch.setattr(type(gate.database), "run", away)
    if stream:
        events = await streamed(client, input="x")
        assert [event.type for event in events[-2:]] == ["error", "response.failed"]
        assert events[-2].code == "store_unavailable"  # pyright: ignore
    else:
        with pytest.raises(openai.InternalServerError) as refused:
            await client.responses.create(model="echo", input="x")
        assert refused.value.code == "store_unavailable"
    answer = await client.responses.create(model="echo", input="x", store=False)
    assert answer.output_text == "x"


async def test_a_client_that_leaves_frees_the_endpoint(gate: Gate) -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        while True:
            await response.write(chunk("more "))
            await asyncio.sleep(0.01)

    gate.upstream.script = endless
    body = {"model": "echo", "input": "x", "stream": True}
    response = await gate.http.post(f"{gate.url}/v1/responses", json=body, headers=gate.headers())
    await response.content.readany()
    response.close()
    await asyncio.wait_for(gate.upstream.cut_off.wait(), 10)
    await until(gate.logged, "the request is in the log")
    assert gate.logged()[0]["outcome"] == "cancelled"


async def test_an_answer_over_the_bound_fails(start_gate: StartGate) -> None:
    async with start_gate(Settings.model_validate({"models": {}, "bounds": {"max_answer_bytes": 1000}})) as gate:
        body = {"model": "echo", "input": " ".join("abcdefgh" * 200), "stream": True}
        told = await (await gate.post("/v1/responses", body)).text()
        last = json.loads(told.rstrip().rpartition("\ndata: ")[2])
        assert (last["type"], last["response"]["status"]) == ("response.failed", "failed")
        assert "bounds.max_answer_bytes" in last["response"]["error"]["message"]
