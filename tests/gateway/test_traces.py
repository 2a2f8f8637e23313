"""One trace a request: its context goes in and out, its spans are kept, and only its own key sees them."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest
from aiohttp import web
from sqlalchemy import select

from parkway.core.trace import CURRENT
from parkway.launch.process_log import name_request
from parkway.launch.settings import Settings
from parkway.policy.keys import KeyStore
from parkway.router.endpoint import Endpoint
from parkway.store import schema
from tests.gateway.conftest import Gate, StartGate
from tests.gateway.test_chat import HELLO, until

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"


def settings(models: object = None, **traces: object) -> Settings:
    return Settings.model_validate({"models": models or {}, "traces": {"flush_interval_s": 0.01, **traces}})


async def spans_of(gate: Gate, name: str) -> dict[str, Any]:
    """The trace as `/v1/traces/{id}` shows it, once it is stored."""
    for _ in range(1000):
        response = await gate.get(f"/v1/traces/{name}")
        if response.status != 404:
            return await response.json()
        await asyncio.sleep(0.01)
    raise AssertionError(f"never: a trace of {name}")


async def knows(gate: Gate, model: str) -> None:
    """Waits until the gateway has heard of the model."""
    for _ in range(1000):
        if (await gate.get(f"/v1/models/{model}")).status == 200:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"never: {model}")


def by_name(trace: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {span["name"]: span for span in trace["spans"]}


async def test_a_stream_leaves_the_spans_of_its_course(start_gate: StartGate) -> None:
    async with start_gate(settings()) as gate:
        answer = await gate.post("/v1/chat/completions", {**HELLO, "stream": True, "temperature": 0.5, "max_tokens": 9})
        trace = await spans_of(gate, answer.headers["x-request-id"])
        spans = by_name(trace)
        assert set(spans) == {"POST /v1/chat/completions", "identify", "admit", "reserve", "queue", "chat echo"}
        root, attempt = spans["POST /v1/chat/completions"], spans["chat echo"]
        assert {span["parent_id"] for span in trace["spans"]} == {None, root["span_id"]}
        assert (root["kind"], root["status"], attempt["kind"]) == ("server", "ok", "client")
        told = root["attributes"]
        assert (told["http.request.method"], told["http.route"]) == ("POST", "/v1/chat/completions")
        assert (told["http.response.status_code"], told["parkway.outcome"]) == (200, "ok")
        told = attempt["attributes"]
        assert told["gen_ai.operation.name"] == "chat"
        assert told["gen_ai.request.model"] == "echo"
        assert told["gen_ai.request.temperature"] == 0.5
        assert told["gen_ai.request.max_tokens"] == 9
        assert (told["gen_ai.usage.input_tokens"], told["gen_ai.usage.output_tokens"]) == (5, 3)
        assert told["gen_ai.response.finish_reasons"] == ["stop"]
        assert told["gen_ai.response.id"] == "chatcmpl-up"
        assert told["parkway.endpoint.id"] == "echo-0"
        assert f"http://{told['server.address']}:{told['server.port']}/v1" == told["url.full"] == gate.upstream_url
        (first,) = attempt["events"]
        assert first["name"] == "first_token"
        assert attempt["started_ms"] <= first["at_ms"] <= attempt["started_ms"] + attempt["duration_ms"]
        ends = root["started_ms"] + root["duration_ms"]
        assert all(root["started_ms"] <= span["started_ms"] <= ends for span in trace["spans"])
        assert "one two" not in str(trace), "no word of what was asked"


async def test_the_names_are_those_of_the_conventions(start_gate: StartGate) -> None:
    conventions = pytest.importorskip("opentelemetry.semconv._incubating.attributes.gen_ai_attributes")
    known = {value for name, value in vars(conventions).items() if name.startswith("GEN_AI_")}
    async with start_gate(settings(content=True)) as gate:
        answer = await gate.post("/v1/chat/completions", {**HELLO, "seed": 7, "top_p": 0.9, "stream": True})
        trace = await spans_of(gate, answer.headers["x-request-id"])
    used = {name for span in trace["spans"] for name in span["attributes"] if name.startswith("gen_ai.")}
    assert len(used) > 10
    assert used <= known


@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("/v1/messages", {"model": "echo", "max_tokens": 9, "messages": HELLO["messages"]}),
        ("/v1/responses", {"model": "echo", "input": "one two three"}),
        ("/v1/completions", {"model": "echo", "prompt": "one two three"}),
        ("/v1/embeddings", {"model": "echo", "input": "one"}),
    ],
)
async def test_every_surface_leaves_a_trace(start_gate: StartGate, route: str, body: dict[str, Any]) -> None:
    operation = {"/v1/completions": "text_completion", "/v1/embeddings": "embeddings"}.get(route, "chat")
    async with start_gate(settings()) as gate:
        answer = await gate.post(route, body)
        assert answer.status == 200, await answer.text()
        spans = by_name(await spans_of(gate, answer.headers["x-request-id"]))
        assert spans[f"POST {route}"]["attributes"]["http.route"] == route
        assert spans[f"{operation} echo"]["attributes"]["gen_ai.operation.name"] == operation


async def test_the_context_goes_in_and_out(start_gate: StartGate) -> None:
    async with start_gate(settings(sample_share=0)) as gate:
        sent = {"traceparent": f"00-{TRACE}-{SPAN}-01", "tracestate": "vendor=1"}
        answer = await gate.post("/v1/chat/completions", HELLO, **sent)
        spans = by_name(await spans_of(gate, TRACE))
        assert spans["POST /v1/chat/completions"]["parent_id"] == SPAN
        (headers,) = gate.upstream.headers
        assert headers["traceparent"] == f"00-{TRACE}-{spans['chat echo']['span_id']}-01"
        assert headers["tracestate"] == "vendor=1"
        await until(gate.logged, "the request is in the log")
        (logged,) = gate.logged()
        assert (logged["trace_id"], logged["request_id"]) == (TRACE, answer.headers["x-request-id"])


@pytest.mark.parametrize("parent", [f"00-{'0' * 32}-{SPAN}-01", "nonsense", f"00-{TRACE}-{SPAN}-01-x"])
async def test_an_invalid_context_is_ignored(start_gate: StartGate, parent: str) -> None:
    async with start_gate(settings()) as gate:
        answer = await gate.post("/v1/chat/completions", HELLO, traceparent=parent, tracestate="vendor=1")
        trace = await spans_of(gate, answer.headers["x-request-id"])
        (headers,) = gate.upstream.headers
        assert headers["traceparent"].split("-")[1] == trace["trace_id"] != TRACE
        assert "tracestate" not in headers


async def test_a_context_that_is_sent_twice_is_none_and_a_state_in_two_parts_is_one(start_gate: StartGate) -> None:
    parent = f"00-{TRACE}-{SPAN}-01"
    async with start_gate(settings()) as gate:
        state = [("tracestate", "a=1"), ("tracestate", "b=2")]
        for parents in (1, 2):
            headers = [("authorization", f"Bearer {gate.key}"), *[("traceparent", parent)] * parents, *state]
            async with gate.http.post(f"{gate.url}/v1/chat/completions", json=HELLO, headers=headers) as response:
                assert response.status == 200
        once, twice = gate.upstream.headers
        assert once["traceparent"].split("-")[1] == TRACE
        assert once["tracestate"] == "a=1,b=2"
        assert twice["traceparent"].split("-")[1] != TRACE
        assert "tracestate" not in twice


async def test_what_is_not_sampled_says_so_and_is_kept_if_it_fails(start_gate: StartGate) -> None:
    async with start_gate(settings(sample_share=0)) as gate:
        await gate.post("/v1/chat/completions", HELLO)
        failed = await gate.post("/v1/chat/completions", {**HELLO, "model": "nobody"})
        assert gate.upstream.headers[0]["traceparent"].endswith("-00")
        root = by_name(await spans_of(gate, failed.headers["x-request-id"]))["POST /v1/chat/completions"]
        assert (root["status"], root["attributes"]["error.type"]) == ("error", "model_not_found")
        with gate.database.read() as connection:
            kept = set(connection.scalars(select(schema.spans.c.request_id)))
        assert kept == {failed.headers["x-request-id"]}


async def test_each_endpoint_that_was_asked_has_a_span(start_gate: StartGate) -> None:
    async with start_gate(settings()) as gate:
        served = gate.upstream.script

        async def busy_once(request: web.Request) -> web.StreamResponse:
            gate.upstream.script = served
            return web.json_response({"error": {"message": "busy", "code": "overloaded"}}, status=503)

        two = (Endpoint(endpoint_id=name, model="two", url=gate.upstream_url, upstream_model="echo") for name in "ab")
        gate.registry.replace("config", two)
        await knows(gate, "two")
        gate.upstream.script = busy_once
        answer = await gate.post("/v1/chat/completions", {**HELLO, "model": "two"})
        trace = await spans_of(gate, answer.headers["x-request-id"])
        first, second = [span for span in trace["spans"] if span["kind"] == "client"]
        assert (first["status"], second["status"]) == ("error", "ok")
        assert {span["attributes"]["parkway.endpoint.id"] for span in (first, second)} == {"a", "b"}
        assert (first["attributes"]["error.type"], first["attributes"]["http.response.status_code"]) == ("503", 503)
        assert second["attributes"]["http.request.resend_count"] == 1
        assert "gen_ai.usage.output_tokens" not in first["attributes"]
        assert [headers["traceparent"].split("-")[2] for headers in gate.upstream.headers] == [
            first["span_id"],
            second["span_id"],
        ]


async def test_an_endpoint_that_cannot_be_reached_has_a_span_too(start_gate: StartGate) -> None:
    async with start_gate(settings()) as gate:
        gone = Endpoint(endpoint_id="gone", model="gone", url="http://127.0.0.1:1/v1", upstream_model="echo")
        gate.registry.put(gone)
        await knows(gate, "gone")
        answer = await gate.post("/v1/chat/completions", {**HELLO, "model": "gone"})
        assert answer.status == 502, await answer.text()
        spans = by_name(await spans_of(gate, answer.headers["x-request-id"]))
        assert spans["chat gone"]["status"] == "error"
        assert spans["chat gone"]["attributes"]["error.type"]


async def test_a_fallback_shows_which_model_answered(start_gate: StartGate) -> None:
    models = {"first": {"url": "http://127.0.0.1:1/v1", "fallbacks": ["echo"]}, "echo": "http://127.0.0.1:1/v1"}
    async with start_gate(settings(models=models)) as gate:
        gone = Endpoint(endpoint_id="gone", model="first", url="http://127.0.0.1:1/v1", upstream_model="echo")
        gate.registry.put(gone)
        await knows(gate, "first")
        answer = await gate.post("/v1/chat/completions", {**HELLO, "model": "first"})
        assert answer.status == 200, await answer.text()
        spans = by_name(await spans_of(gate, answer.headers["x-request-id"]))
        root = spans["POST /v1/chat/completions"]["attributes"]
        assert (root["gen_ai.request.model"], root["gen_ai.response.model"]) == ("first", "echo")
        assert spans["chat echo"]["attributes"]["gen_ai.request.model"] == "echo"


async def test_an_endpoints_error_is_the_attempts(start_gate: StartGate) -> None:
    async def fail(_: web.Request) -> web.StreamResponse:
        return web.json_response({"error": {"message": "broken"}}, status=500)

    async with start_gate(settings()) as gate:
        gate.upstream.script = fail
        answer = await gate.post("/v1/chat/completions", HELLO)
        spans = by_name(await spans_of(gate, answer.headers["x-request-id"]))
        assert spans["chat echo"]["attributes"]["http.response.status_code"] == 500
        assert spans["chat echo"]["attributes"]["error.type"] == "500"
        assert spans["POST /v1/chat/completions"]["attributes"]["error.type"] == "endpoint_failed"


async def test_content_is_recorded_only_where_it_is_asked_for(start_gate: StartGate) -> None:
    async with start_gate(settings(content=True)) as gate:
        answer = await gate.post("/v1/chat/completions", HELLO)
        told = by_name(await spans_of(gate, answer.headers["x-request-id"]))["chat echo"]["attributes"]
        assert HELLO["messages"][0]["content"] in told["gen_ai.input.messages"]
        assert '"role":"assistant"' in told["gen_ai.output.messages"]


async def test_a_key_sees_its_own_traces(start_gate: StartGate) -> None:
    async with start_gate(settings()) as gate:
        ids = [(await gate.post("/v1/chat/completions", HELLO)).headers["x-request-id"] for _ in range(3)]
        failed = await gate.post("/v1/chat/completions", {**HELLO, "model": "nobody"})
        other = KeyStore(gate.database).create("other", scopes=["model:*"])[1]
        while (await gate.get("/v1/models", key=other)).status == 401:
            pass
        await spans_of(gate, ids[-1])
        assert (await gate.get(f"/v1/traces/{ids[0]}", key=other)).status == 404
        theirs = (await (await gate.get("/v1/traces", key=other)).json())["data"]
        assert {each["name"].partition(" ")[0] for each in theirs} <= {"GET"}, "what it asked itself, and no more"
        await spans_of(gate, failed.headers["x-request-id"])
        page = await (await gate.get("/v1/traces?status=ok&limit=100")).json()
        chats = [each for each in page["data"] if each["name"].startswith("POST")]
        assert [each["request_id"] for each in chats] == [ids[2], ids[1], ids[0]]
        assert (chats[0]["outcome"], chats[0]["model"]) == ("ok", "echo")
        page = await (await gate.get(f"/v1/traces?limit=1&after={ids[2]}")).json()
        assert page["has_more"]
        page = await (await gate.get(f"/v1/traces?limit=1&after={page['last_id']}")).json()
        assert [each["request_id"] for each in page["data"]] == [ids[0]]
        assert (await (await gate.get("/v1/traces?since_ms=9000000000000")).json())["data"] == []
        assert (await (await gate.get("/v1/traces?min_ms=2147483648")).json())["data"] == []
        for wrong in ("status=odd", "limit=0", "min_ms=x", "since_ms=-1", "since_ms=9000000000001"):
            assert (await gate.get(f"/v1/traces?{wrong}")).status == 400
        assert (await gate.get("/v1/traces?after=none")).status == 404


async def test_strangers_leave_no_trace(start_gate: StartGate) -> None:
    async with start_gate(settings()) as gate:
        assert (await gate.post("/v1/chat/completions", HELLO, key="nonsense")).status == 401
        known = await gate.post("/v1/chat/completions", HELLO)
        await spans_of(gate, known.headers["x-request-id"])
        with gate.database.read() as connection:
            posted = select(schema.spans.c.request_id).where(schema.spans.c.name.startswith("POST"))
            assert set(connection.scalars(posted)) == {known.headers["x-request-id"]}


async def test_a_line_of_the_log_names_the_request(start_gate: StartGate, caplog: pytest.LogCaptureFixture) -> None:
    async def fail(_: web.Request) -> web.StreamResponse:
        return web.json_response({"error": {"message": "broken"}}, status=500)

    async with start_gate(settings()) as gate:
        gate.upstream.script = fail
        lines: list[str] = []

        class Collect(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                lines.append(self.format(record))

        handler = Collect()
        handler.addFilter(name_request)
        handler.setFormatter(logging.Formatter("%(message)s%(request)s"))
        logger = logging.getLogger("parkway.pipeline.answer")
        logger.addHandler(handler)
        try:
            answer = await gate.post("/v1/chat/completions", HELLO, traceparent=f"00-{TRACE}-{SPAN}-00")
        finally:
            logger.removeHandler(handler)
        assert lines[0].endswith(f" [request_id={answer.headers['x-request-id']} trace_id={TRACE}]")


@pytest.mark.parametrize(
    ("current", "told"),
    [(None, ""), (("req_1", ""), " [request_id=req_1]"), (("req_1", TRACE), f" [request_id=req_1 trace_id={TRACE}]")],
)
def test_a_line_without_a_request_names_none(current: tuple[str, str] | None, told: str) -> None:
    line = logging.makeLogRecord({"msg": "x"})
    token = CURRENT.set(current)
    try:
        assert name_request(line)
    finally:
        CURRENT.reset(token)
    assert vars(line)["request"] == told


async def test_the_time_between_tokens_is_measured(start_gate: StartGate) -> None:
    async with start_gate(settings()) as gate:
        await gate.post("/v1/chat/completions", {**HELLO, "stream": True})
        text = await (await gate.get("/metrics")).text()
        assert 'parkway_token_interval_seconds_count{model="echo"} 1.0' in text


async def test_own_routes_leave_one_span_and_the_probes_none(start_gate: StartGate) -> None:
    sections = {"models": {}, "traces": {"flush_interval_s": 0.01}}
    async with start_gate(Settings.model_validate(sections)) as gate:
        parent = f"00-{'ab' * 16}-{'cd' * 8}-01"
        headers = {**gate.headers(), "traceparent": parent}
        async with gate.http.get(f"{gate.url}/v1/models/echo?x=1", headers=headers) as shown:
            assert shown.status == 200
        missing = await gate.get("/v1/conversations/none")
        assert missing.status == 404
        for path in ("/healthz", "/readyz", "/metrics", "/openapi.json"):
            await gate.get(path)
        assert (await gate.get("/v1/models", key="stranger")).status == 401
        found: list[dict[str, Any]] = []

        def enough() -> bool:
            with gate.database.read() as connection:
                found[:] = [dict(row) for row in connection.execute(select(schema.spans)).mappings()]
            return len(found) >= 2

        await until(enough, "two spans")
        model, conversation = sorted(found, key=lambda row: row["name"], reverse=True)
        assert (model["name"], conversation["name"]) == (
            "GET /v1/models/{model}", "GET /v1/conversations/{conversation}",
        )  # fmt: skip
        assert (model["trace_id"], model["parent_id"], model["kind"]) == ("ab" * 16, "cd" * 8, "server")
        assert json.loads(model["attributes"]) == {
            "http.request.method": "GET", "http.route": "/v1/models/{model}", "url.path": "/v1/models/echo",
            "http.response.status_code": 200, "parkway.outcome": "ok",
        }  # fmt: skip
        assert conversation["status"] == "ok", "what a client did wrong is no error of the server"
        told = json.loads(conversation["attributes"])
        assert (told["http.response.status_code"], told["parkway.outcome"]) == (404, "not_found")
        assert conversation["request_id"] == missing.headers["x-request-id"]
