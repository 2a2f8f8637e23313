"""Reranking through the gateway: relayed, bounded, logged."""

from __future__ import annotations

import pytest
from aiohttp import web

from parkway.launch.settings import Settings
from tests.gateway.conftest import Gate, StartGate
from tests.gateway.test_chat import until

ASKED = {"model": "echo", "query": "q", "documents": ["a", {"text": "b"}], "top_n": 1, "priority": 3}

ANSWER = {
    "id": "rerank-up",
    "model": "echo",
    "results": [{"index": 1, "relevance_score": 0.5}],
    "usage": {"prompt_tokens": 7, "total_tokens": 7},
}


async def ranking(request: web.Request) -> web.StreamResponse:
    return web.json_response({**ANSWER, "path": request.path})


async def test_a_ranking_is_relayed_and_logged(gate: Gate) -> None:
    gate.upstream.script = ranking
    response = await gate.post("/v1/rerank", ASKED)
    assert response.status == 200
    assert await response.json() == {**ANSWER, "path": "/v1/rerank"}
    # A field that only the endpoint knows goes there too.
    assert gate.upstream.bodies[-1] == ASKED
    await until(gate.logged, "the request is in the log")
    (entry,) = gate.logged()
    assert (entry["surface"], entry["response_id"], entry["stream"]) == ("rerank", "rerank-up", False)
    assert (entry["model"], entry["endpoint_id"], entry["outcome"], entry["status"]) == ("echo", "echo-0", "ok", 200)
    assert (entry["prompt_tokens"], entry["completion_tokens"], entry["first_token_ms"]) == (7, 0, None)
    figures = await (await gate.get("/metrics")).text()
    assert 'parkway_requests_total{model="echo",outcome="ok",surface="rerank"} 1.0' in figures


@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [
        ({**ASKED, "model": "ecko"}, 404, "model_not_found", "model"),
        ({**ASKED, "documents": []}, 400, "invalid_request", "documents"),
        ({**ASKED, "documents": [1]}, 400, "invalid_request", "documents.0"),
        ({**ASKED, "documents": ["a"] * 1001}, 400, "invalid_request", "documents"),
        ({**ASKED, "query": 1}, 400, "invalid_request", "query"),
        ({**ASKED, "top_n": -1}, 400, "invalid_request", "top_n"),
    ],
)
async def test_what_is_wrong_is_said_before_an_endpoint_is_asked(
    gate: Gate, body: dict[str, object], status: int, code: str, param: str
) -> None:
    response = await gate.post("/v1/rerank", body)
    error = (await response.json())["error"]
    assert (response.status, error["code"], error["param"]) == (status, code, param)
    assert gate.upstream.bodies == []
    await until(gate.logged, "the refusal is in the log")
    assert [(entry["surface"], entry["outcome"]) for entry in gate.logged()] == [("rerank", code)]


async def test_the_bounds_are_those_of_the_configuration(start_gate: StartGate) -> None:
    bounds = {"max_documents": 1, "max_body_bytes": 2000}
    async with start_gate(Settings.model_validate({"models": {}, "bounds": bounds})) as gate:
        response = await gate.post("/v1/rerank", ASKED)
        message = (await response.json())["error"]["message"]
        assert message == "`documents`: 2 entries, at most 1 allowed; set by bounds.max_documents"
        response = await gate.post("/v1/rerank", {**ASKED, "documents": ["a" * 3000]})
        assert (response.status, (await response.json())["error"]["code"]) == (413, "body_too_large")


async def test_nobody_ranks_without_a_key(gate: Gate) -> None:
    response = await gate.post("/v1/rerank", ASKED, key="pk-wrong")
    assert response.status == 401
    assert gate.upstream.bodies == []
