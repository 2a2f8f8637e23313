"""Chat through the gateway: whole, streamed, refused, broken, left."""

from __future__ import annotations

import asyncio
import json

import openai
import pytest
from aiohttp import web

from parkway.launch.settings import Settings
from tests.gateway.conftest import Gate, StartGate
from tests.gateway.upstream import chunk

HELLO = {"model": "echo", "messages": [{"role": "user", "content": "one two three"}]}


async def until(condition: object, what: str) -> None:
    """Waits until `condition()` is true; the suite's time-out ends a wait that is never over."""
    assert callable(condition)
    for _ in range(500):
        if condition():
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"never: {what}")


async def events(gate: Gate, body: dict[str, object]) -> list[dict[str, object] | str]:
    """The data of every event of a stream; `[DONE]` as text."""
    response = await gate.post("/v1/chat/completions", {**body, "stream": True})
    assert response.status == 200
    assert response.content_type == "text/event-stream"
    blocks = [block.removeprefix("data: ") for block in (await response.text()).split("\n\n") if block]
    return [block if block == "[DONE]" else json.loads(block) for block in blocks]


async def test_a_whole_answer_comes_back_as_it_was_and_is_logged(gate: Gate) -> None:
    response = await gate.post("/v1/chat/completions", HELLO)
    assert response.status == 200
    answer = await response.json()
    assert answer["choices"][0]["message"]["content"] == "one two three"
    await until(gate.logged, "the request is in the log")
    (entry,) = gate.logged()
    assert entry["request_id"] == response.headers["x-request-id"]
    assert entry["response_id"] == "chatcmpl-up"
    assert (entry["model"], entry["endpoint_id"], entry["outcome"], entry["status"]) == ("echo", "echo-0", "ok", 200)
    assert (entry["prompt_tokens"], entry["completion_tokens"]) == (5, 3)


async def test_the_endpoint_gets_the_clients_bytes_and_never_its_key(gate: Gate) -> None:
    await gate.post("/v1/chat/completions", {**HELLO, "an_extension": {"x": [1, 2]}})
    assert gate.upstream.bodies[-1]["an_extension"] == {"x": [1, 2]}
    assert gate.key not in str(gate.upstream.headers[-1])


async def test_usage_is_counted_also_where_the_client_did_not_ask_and_then_not_shown(gate: Gate) -> None:
    seen = await events(gate, HELLO)
    assert seen[-1] == "[DONE]"
    assert not any("usage" in event for event in seen if isinstance(event, dict))
    assert gate.upstream.bodies[-1]["stream_options"] == {"include_usage": True}
    await until(gate.logged, "the request is in the log")
    (entry,) = gate.logged()
    assert (entry["stream"], entry["prompt_tokens"], entry["completion_tokens"]) == (True, 5, 3)
    assert entry["first_token_ms"] is not None


async def test_usage_is_shown_to_a_client_that_asked(gate: Gate) -> None:
    seen = await events(gate, {**HELLO, "stream_options": {"include_usage": True}})
    assert isinstance(seen[-2], dict)
    assert all(event["usage"] is None for event in seen[:-2] if isinstance(event, dict))
    assert seen[-2]["usage"] == {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}


async def test_the_openai_client_sync_and_async(gate: Gate) -> None:
    client = openai.AsyncOpenAI(base_url=f"{gate.url}/v1", api_key=gate.key, max_retries=0)
    stream = await client.chat.completions.create(
        model="echo", messages=[{"role": "user", "content": "a b c"}], stream=True
    )
    pieces = [chunk.choices[0].delta.content async for chunk in stream if chunk.choices]
    assert "".join(piece or "" for piece in pieces).split() == ["a", "b", "c"]
    assert [model.id async for model in client.models.list()] == ["echo"]
    embedded = await client.embeddings.create(model="echo", input="x", encoding_format="float")
    assert embedded.data[0].embedding == [0.5, 0.5]
    completed = await client.completions.create(model="echo", prompt="p q")
    assert completed.choices[0].text == "p q"
    with pytest.raises(openai.NotFoundError) as missing:
        await client.chat.completions.create(model="ecko", messages=[{"role": "user", "content": "x"}])
    assert missing.value.code == "model_not_found"
    assert 'Did you mean "echo"' in missing.value.message
    with pytest.raises(openai.AuthenticationError):
        await client.with_options(api_key="pk-wrong").models.list()
    await client.close()

    def synchronous() -> str:
        with openai.OpenAI(base_url=f"{gate.url}/v1", api_key=gate.key) as sync:
            answer = sync.chat.completions.create(model="echo", messages=[{"role": "user", "content": "hi"}])
            return answer.choices[0].message.content or ""

    assert await asyncio.to_thread(synchronous) == "hi"


@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [
        ({"model": "echo", "messages": "x"}, 400, "invalid_request", "messages"),
        ({**HELLO, "temperature": 9}, 400, "invalid_request", "temperature"),
        ({**HELLO, "n": 100}, 400, "invalid_request", "n"),
        ({**HELLO, "stop": ["x"] * 100}, 400, "invalid_request", "stop"),
        ({**HELLO, "knowledge": ["docs"]}, 404, "collection_not_found", "knowledge"),
        ({**HELLO, "stream_options": {"include_usage": True}}, 400, "invalid_request", "stream_options"),
        ({**HELLO, "conversation": "../../etc"}, 400, "invalid_request", "conversation"),
        ({**HELLO, "model": "nobody"}, 404, "model_not_found", "model"),
        ({**HELLO, "messages": [HELLO["messages"][0]] * 3000}, 400, "invalid_request", "messages"),
    ],
)
async def test_bad_requests_are_answered_by_name(
    gate: Gate, body: dict[str, object], status: int, code: str, param: str
) -> None:
    response = await gate.post("/v1/chat/completions", body)
    error = (await response.json())["error"]
    assert (response.status, error["code"], error["param"]) == (status, code, param), error
    assert error["request_id"] == response.headers["x-request-id"]
    assert gate.upstream.bodies == []


async def test_what_is_not_json_and_what_is_too_large(gate: Gate, start_gate: StartGate) -> None:
    async with gate.http.post(f"{gate.url}/v1/chat/completions", data=b"{nope", headers=gate.headers()) as response:
        assert response.status == 400
        assert (await response.json())["error"]["code"] == "malformed_json"

    async def endless() -> object:
        for _ in range(100):
            yield b"x" * 100_000

    for data in (b"x" * 5_000_000, endless()):
        async with gate.http.post(f"{gate.url}/v1/chat/completions", data=data, headers=gate.headers()) as response:
            assert response.status == 413
            assert (await response.json())["error"]["code"] == "body_too_large"


async def test_without_a_key_nothing_is_read(gate: Gate) -> None:
    async with gate.http.post(f"{gate.url}/v1/chat/completions", data=b"{nope") as response:
        assert response.status == 401
        assert response.headers["www-authenticate"] == "Bearer"
        assert (await response.json())["error"]["code"] == "missing_api_key"
    assert gate.logged() == []


async def test_the_rate_limit_says_when_to_come_back(start_gate: StartGate) -> None:
    settings = Settings.model_validate({"models": {}, "limits": {"rate_per_s": 0.5, "burst": 2}})
    async with start_gate(settings) as gate:
        answers = [await gate.post("/v1/chat/completions", HELLO) for _ in range(3)]
        assert [answer.status for answer in answers] == [200, 200, 429]
        assert 1 <= int(answers[2].headers["retry-after"]) <= 2
        other = await gate.post("/v1/chat/completions", HELLO, key=gate.new_key("other"))
        assert other.status in (200, 401)  # the new key is seen within a watch's interval
        assert other.status != 429


async def test_a_stream_that_breaks_ends_with_an_error_event(gate: Gate) -> None:
    async def breaks(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(chunk("half ") + b'data: {"id": "cut in the mid')
        assert request.transport is not None
        request.transport.close()
        return response

    gate.upstream.script = breaks
    seen = await events(gate, HELLO)
    assert isinstance(seen[0], dict)
    assert isinstance(seen[-1], dict)
    assert seen[-1]["error"]["code"] == "stream_interrupted"  # pyright: ignore[reportIndexIssue]
    assert "[DONE]" not in seen
    await until(gate.logged, "the request is in the log")
    assert gate.logged()[0]["outcome"] == "stream_interrupted"


async def test_the_openai_client_sees_a_broken_stream_as_an_error(gate: Gate) -> None:
    async def breaks(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(chunk("half "))
        assert request.transport is not None
        request.transport.close()
        return response

    gate.upstream.script = breaks
    async with openai.AsyncOpenAI(base_url=f"{gate.url}/v1", api_key=gate.key, max_retries=0) as client:
        stream = await client.chat.completions.create(
            model="echo", messages=[{"role": "user", "content": "x"}], stream=True
        )
        with pytest.raises(openai.APIError) as broken:
            async for _ in stream:
                pass
    assert broken.value.code == "stream_interrupted"


async def test_an_error_inside_a_stream_is_told_and_logged(gate: Gate) -> None:
    async def fails(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(chunk("half ") + b'data: {"error": {"message": "out of memory"}}\n\n')
        return response

    gate.upstream.script = fails
    seen = await events(gate, HELLO)
    assert seen[-1] == {"error": {"message": "out of memory"}}
    await until(gate.logged, "the request is in the log")
    assert gate.logged()[0]["outcome"] == "endpoint_failed"


@pytest.mark.parametrize(
    ("status", "body", "told_status", "told_code"),
    [
        (400, {"error": {"message": "bad grammar", "type": "invalid_request_error", "code": "x"}}, 400, "x"),
        (422, {"detail": "nope"}, 422, "endpoint_refused"),
        (401, {"error": {"message": "who?"}}, 502, "endpoint_failed"),
        (404, {"error": "gone"}, 502, "endpoint_failed"),
        (429, {"error": {"message": "slow down"}}, 429, "endpoint_refused"),
        (500, {"error": {"message": "boom"}}, 502, "endpoint_failed"),
        (200, "not an answer", 502, "endpoint_failed"),
        (200, {"error": {"message": "failed with 200"}}, 502, "endpoint_failed"),
    ],
)
async def test_what_an_endpoint_refuses_reaches_the_client_in_our_form(
    gate: Gate, status: int, body: object, told_status: int, told_code: str
) -> None:
    async def refuses(_: web.Request) -> web.StreamResponse:
        return web.json_response(body, status=status)

    gate.upstream.script = refuses
    response = await gate.post("/v1/chat/completions", HELLO)
    error = (await response.json())["error"]
    assert (response.status, error["code"]) == (told_status, told_code), error


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_before_the_first_token_frees_the_endpoint(gate: Gate, stream: bool) -> None:
    asked = asyncio.Event()

    async def hangs(_: web.Request) -> web.StreamResponse:
        asked.set()
        await asyncio.sleep(60)
        raise AssertionError("not reached")

    gate.upstream.script = hangs
    request = asyncio.ensure_future(gate.post("/v1/chat/completions", {**HELLO, "stream": stream}))
    await asked.wait()
    request.cancel()
    await asyncio.wait_for(gate.upstream.cut_off.wait(), 10)
    await until(gate.logged, "the request is in the log")
    assert (gate.logged()[0]["outcome"], gate.logged()[0]["status"]) == ("cancelled", 499)


async def test_a_client_that_leaves_in_the_middle_frees_the_endpoint(gate: Gate) -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        while True:
            await response.write(chunk("more "))
            await asyncio.sleep(0.01)

    gate.upstream.script = endless
    response = await gate.http.post(
        f"{gate.url}/v1/chat/completions", json={**HELLO, "stream": True}, headers=gate.headers()
    )
    await response.content.readany()
    response.close()
    await asyncio.wait_for(gate.upstream.cut_off.wait(), 10)
    await until(gate.logged, "the request is in the log")
    assert gate.logged()[0]["outcome"] == "cancelled"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_time_out_is_an_answer(gate: Gate, stream: bool) -> None:
    async def hangs(_: web.Request) -> web.StreamResponse:
        await asyncio.sleep(60)
        raise AssertionError("not reached")

    gate.upstream.script = hangs
    response = await gate.post("/v1/chat/completions", {**HELLO, "stream": stream}, **{"x-parkway-timeout-s": "0.2"})
    assert response.status == 504
    assert (await response.json())["error"]["code"] == "deadline_exceeded"
    wrong = await gate.post("/v1/chat/completions", HELLO, **{"x-parkway-timeout-s": "soon"})
    assert wrong.status == 400


async def test_a_draining_gateway_takes_nothing_new(gate: Gate) -> None:
    gate.readiness.draining = True
    response = await gate.post("/v1/chat/completions", HELLO)
    assert (response.status, response.headers["retry-after"]) == (503, "1")
    assert (await response.json())["error"]["code"] == "draining"
    assert (await gate.get("/readyz")).status == 503
    assert (await gate.get("/healthz")).status == 200
