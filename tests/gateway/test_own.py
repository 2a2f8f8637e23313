"""Feedback, models, health, metrics, the OpenAPI document, and paths that are none."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from starlette.routing import Route

from parkway.gateway.openapi import OPERATIONS
from parkway.launch.settings import Settings
from parkway.router.endpoint import Endpoint
from tests.gateway.conftest import Gate, StartGate
from tests.gateway.test_chat import HELLO, until


async def test_feedback_by_either_id_and_only_on_ones_own_requests(gate: Gate) -> None:
    answer = await gate.post("/v1/chat/completions", HELLO)
    for request_id in (answer.headers["x-request-id"], "chatcmpl-up"):
        given = await gate.post("/v1/feedback", {"request_id": request_id, "thumb": "up", "comment": "good"})
        assert given.status == 201, await given.text()
        assert (await given.json())["request_id"] == answer.headers["x-request-id"]
    assert (await gate.post("/v1/feedback", {"request_id": "req_none", "thumb": "up"})).status == 404
    empty = await gate.post("/v1/feedback", {"request_id": answer.headers["x-request-id"]})
    assert empty.status == 400
    other = gate.new_key("other")
    while (await gate.get("/v1/models", key=other)).status == 401:
        pass
    stranger = await gate.post(
        "/v1/feedback", {"request_id": answer.headers["x-request-id"], "thumb": "down"}, key=other
    )
    assert stranger.status == 404


async def test_models_follow_the_registry_live(gate: Gate) -> None:
    gate.registry.put(Endpoint(endpoint_id="b", model="b/x", url=gate.upstream_url, upstream_model="echo"))

    async def names() -> list[str]:
        return [model["id"] for model in (await (await gate.get("/v1/models")).json())["data"]]

    while "b/x" not in await names():
        pass
    assert (await (await gate.get("/v1/models/b/x")).json())["id"] == "b/x"
    await gate.post("/v1/chat/completions", {**HELLO, "model": "b/x"})
    assert gate.upstream.bodies[-1]["model"] == "echo"
    gate.registry.remove("b")
    while "b/x" in await names():
        pass
    assert (await gate.get("/v1/models/b/x")).status == 404


async def test_metrics_need_a_key_and_count(gate: Gate) -> None:
    await gate.post("/v1/chat/completions", HELLO)
    await gate.post("/v1/chat/completions", {**HELLO, "model": "nobody"})
    text = await (await gate.get("/metrics")).text()
    assert 'parkway_requests_total{model="echo",outcome="ok",surface="chat"} 1.0' in text
    assert 'parkway_requests_total{model="unknown",outcome="model_not_found",surface="chat"} 1.0' in text
    async with gate.http.get(f"{gate.url}/metrics") as response:
        assert response.status == 401


async def test_readiness_waits_for_the_models_of_this_machine(start_gate: StartGate) -> None:
    async with start_gate(Settings.model_validate({"models": {"park-mini": "park-mini"}})) as gate:
        response = await gate.get("/readyz")
        assert response.status == 503
        assert (await response.json())["reasons"] == ['model "park-mini" has no endpoint yet']

        async def becomes(status: int) -> None:
            while (await gate.get("/readyz")).status != status:
                pass

        engine = Endpoint(
            endpoint_id="p", model="park-mini", url=gate.upstream_url, upstream_model="park-mini", source="local"
        )
        gate.registry.put(engine)
        await becomes(200)
        gate.registry.put(replace(engine, state="down"))  # echo still answers: the gateway stays in service
        while gate.readiness.view.endpoints("park-mini")[0].state != "down":
            await gate.get("/healthz")
        await becomes(200)
        gate.registry.remove("echo-0")
        await becomes(503)
        gate.registry.put(engine)
        await becomes(200)


async def test_paths_and_methods_that_are_none_get_an_error_object(gate: Gate) -> None:
    missing = await gate.get("/v1/chat/completion")
    assert (missing.status, (await missing.json())["error"]["code"]) == (404, "not_found")
    wrong = await gate.get("/v1/chat/completions")
    assert (wrong.status, (await wrong.json())["error"]["code"]) == (405, "method_not_allowed")
    assert wrong.headers["allow"] == "POST"


async def test_the_document_describes_every_route(gate: Gate) -> None:
    document = await (await gate.get("/openapi.json")).json()
    described = {(method, path) for path, methods in document["paths"].items() for method in methods}
    assert described == {(operation.method, operation.path) for operation in OPERATIONS}
    for method, path in described:
        url = gate.url + path.replace("{model}", "echo").replace("{conversation}", "none")
        async with gate.http.request(method, url, headers=gate.headers()) as response:
            assert response.status not in (405, 501), (method, path)
            error = (await response.json())["error"] if response.status == 404 else {"message": ""}
            assert "is not a route" not in error["message"]


async def test_every_route_but_the_open_ones_needs_a_key(gate: Gate) -> None:
    for operation in OPERATIONS:
        async with gate.http.request(operation.method, gate.url + operation.path) as response:
            assert (response.status == 401) is not operation.open, operation.path


def test_the_application_has_no_route_that_the_document_lacks() -> None:
    import inspect

    from parkway.gateway import app

    source = inspect.getsource(app.create)
    paths = {operation.path for operation in OPERATIONS}
    for line in source.splitlines():
        if 'Route("' in line:
            path = line.split('Route("')[1].split('"')[0].replace(":path", "")
            assert path in paths
    assert Route is not None


async def test_too_many_at_once_are_refused_and_not_queued(start_gate: StartGate) -> None:
    from aiohttp import web

    settings = Settings.model_validate({"models": {}, "gateway": {"max_requests": 2}})
    async with start_gate(settings) as gate:
        release = asyncio.Event()

        async def waits(request: web.Request) -> web.StreamResponse:
            await release.wait()
            return await gate.upstream.echo(request)

        gate.upstream.script = waits
        running = [asyncio.ensure_future(gate.post("/v1/chat/completions", HELLO)) for _ in range(2)]
        await until(lambda: len(gate.upstream.bodies) == 2, "both requests are at the endpoint")
        refused = await gate.post("/v1/chat/completions", HELLO)
        assert (refused.status, (await refused.json())["error"]["code"]) == (503, "overloaded")
        release.set()
        assert [(await answer).status for answer in running] == [200, 200]
