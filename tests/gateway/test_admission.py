"""Turns, queues and tiers, through the whole gateway."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import aiohttp
import pytest
from aiohttp import web

from parkway.launch.settings import Settings
from parkway.router.endpoint import Endpoint
from tests.gateway.conftest import Gate, StartGate

CHAT = "/v1/chat/completions"


def asking(text: str = "x", **fields: object) -> dict[str, object]:
    return {"model": "echo", "messages": [{"role": "user", "content": text}], **fields}


def configured(**admission: object) -> Settings:
    return Settings.model_validate({"models": {}, "admission": {"max_concurrency": 1, **admission}})


class Held:
    """An endpoint that answers when it is told to, and knows in which order it was asked."""

    def __init__(self, gate: Gate) -> None:
        self.asked: list[str] = []
        self._go = asyncio.Semaphore(0)
        self._upstream = gate.upstream
        gate.upstream.script = self._answer

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        messages = self._upstream.bodies[-1]["messages"]
        assert isinstance(messages, list)
        self.asked.append(messages[-1]["content"])
        await self._go.acquire()
        return await self._upstream.echo(request)

    def let_go(self, count: int = 1) -> None:
        for _ in range(count):
            self._go.release()


async def soon(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what is looked at tells nobody
            await asyncio.sleep(0.005)


async def figure(gate: Gate, line: str) -> float:
    """The value of one series of /metrics; 0 where there is none."""
    text = await (await gate.get("/metrics")).text()
    return next((float(each.split()[-1]) for each in text.splitlines() if each.startswith(line)), 0.0)


async def until_waiting(gate: Gate, count: int, name: str = "standard") -> None:
    async with asyncio.timeout(10):
        while await figure(gate, f'parkway_queue_length{{class="{name}",model="echo"}}') != count:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def in_background(work: Awaitable[aiohttp.ClientResponse]) -> asyncio.Future[aiohttp.ClientResponse]:
    return asyncio.ensure_future(work)


async def test_what_has_to_wait_is_answered_in_turn_and_logged_with_its_wait(start_gate: StartGate) -> None:
    async with start_gate(configured()) as gate:
        held = Held(gate)
        first = in_background(gate.post(CHAT, asking("first")))
        await soon(lambda: held.asked == ["first"])
        second = in_background(gate.post(CHAT, asking("second")))
        await until_waiting(gate, 1)
        assert held.asked == ["first"]
        held.let_go(2)
        assert [(await first).status, (await second).status] == [200, 200]
        assert held.asked == ["first", "second"]
        assert await figure(gate, 'parkway_queue_seconds_count{class="standard",model="echo"}') == 2
        assert await figure(gate, 'parkway_concurrency_limit{model="echo"}') == 1
        await soon(lambda: len(gate.logged()) == 2)
        waits = [row["queue_ms"] for row in gate.logged()]
        assert waits[0] == 0
        assert isinstance(waits[1], float)
        assert waits[1] > 0


async def test_a_key_with_many_does_not_delay_a_key_with_one(start_gate: StartGate) -> None:
    async with start_gate(configured()) as gate:
        held, other = Held(gate), gate.new_key("other")
        many = [in_background(gate.post(CHAT, asking("many"))) for _ in range(30)]
        await until_waiting(gate, 29)
        one = in_background(gate.post(CHAT, asking("one"), key=other))
        await until_waiting(gate, 30)
        held.let_go(3)
        assert (await one).status == 200
        assert sum(each.done() for each in many) <= 2
        held.let_go(100)
        assert {(await each).status for each in many} == {200}


async def test_a_request_may_lower_its_class_and_not_raise_it(start_gate: StartGate) -> None:
    async with start_gate(configured()) as gate:
        held = Held(gate)
        running = in_background(gate.post(CHAT, asking("running")))
        await soon(lambda: len(held.asked) == 1)
        waiting = [
            in_background(gate.post(CHAT, asking("batch"), **{"x-parkway-priority": "batch"})),
            in_background(gate.post(CHAT, asking("flex", service_tier="flex"))),
            in_background(gate.post("/v1/responses", {"model": "echo", "input": "flex", "service_tier": "flex"})),
            in_background(gate.post(CHAT, asking("raised"), **{"x-parkway-priority": "interactive"})),
            in_background(gate.post(CHAT, asking("raised", service_tier="priority"))),
        ]
        await until_waiting(gate, 3, "batch")
        await until_waiting(gate, 2, "standard")
        assert await figure(gate, 'parkway_queue_length{class="interactive"') == 0
        held.let_go(10)
        assert {(await each).status for each in (running, *waiting)} == {200}
        unknown = await gate.post(CHAT, asking(), **{"x-parkway-priority": "batsch"})
        assert unknown.status == 400
        assert 'Did you mean "batch"?' in (await unknown.json())["error"]["message"]


async def test_a_client_that_leaves_the_queue_makes_room(start_gate: StartGate) -> None:
    async with start_gate(configured()) as gate:
        held = Held(gate)
        running = in_background(gate.post(CHAT, asking("running")))
        await soon(lambda: len(held.asked) == 1)
        leaving = in_background(gate.post(CHAT, asking("leaving")))
        await until_waiting(gate, 1)
        leaving.cancel()
        await until_waiting(gate, 0)
        held.let_go(10)
        assert (await running).status == 200
        assert held.asked == ["running"]
        assert await figure(gate, 'parkway_queue_shed_total{class="standard",model="echo",reason="left"}') == 1
        await soon(lambda: len(gate.logged()) == 2)
        assert {row["outcome"] for row in gate.logged()} == {"ok", "cancelled"}


async def test_a_full_queue_refuses_with_a_reason_and_a_time(start_gate: StartGate) -> None:
    async with start_gate(configured(max_queue_requests=2)) as gate:
        held = Held(gate)
        running = in_background(gate.post(CHAT, asking("running")))
        await soon(lambda: len(held.asked) == 1)
        waiting = [in_background(gate.post(CHAT, asking("waiting"))) for _ in range(2)]
        await until_waiting(gate, 2)
        refused = await gate.post(CHAT, asking("one more"))
        error = (await refused.json())["error"]
        assert (refused.status, error["code"]) == (503, "overloaded")
        assert "admission.max_queue_requests" in error["message"]
        assert int(refused.headers["retry-after"]) >= 1
        held.let_go(10)
        assert {(await each).status for each in (running, *waiting)} == {200}


async def test_one_that_waits_too_long_is_refused_in_the_queue(start_gate: StartGate) -> None:
    settings = configured(classes={"standard": {"max_wait_s": 0.05}})
    async with start_gate(settings) as gate:
        held = Held(gate)
        running = in_background(gate.post(CHAT, asking("running")))
        await soon(lambda: len(held.asked) == 1)
        refused = await gate.post(CHAT, asking("late"))
        assert refused.status == 503
        assert "the longest that it may" in (await refused.json())["error"]["message"]
        held.let_go()
        assert (await running).status == 200


async def test_the_place_is_given_back_whatever_ends_the_request(start_gate: StartGate) -> None:
    async with start_gate(configured()) as gate:

        async def broken(_: web.Request) -> web.StreamResponse:
            return web.Response(text="no answer")

        async def refusing(_: web.Request) -> web.StreamResponse:
            return web.json_response({"error": {"message": "too many", "code": "overloaded"}}, status=503)

        async def cut(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse(headers={"content-type": "text/event-stream"})
            await response.prepare(request)
            await response.write(b'data: {"choices": [{"index": 0, "delta": {"content": "a"}}]}\n\n')
            assert request.transport is not None
            request.transport.abort()
            return response

        for script, stream in ((broken, False), (refusing, False), (cut, True)):
            gate.upstream.script = script
            await gate.post(CHAT, asking(stream=stream))
            assert await figure(gate, 'parkway_admitted{model="echo"}') == 0
        gate.upstream.script = gate.upstream.echo
        assert (await gate.post(CHAT, asking())).status == 200
        late = await gate.post(CHAT, asking(), **{"x-parkway-timeout-s": "5"})
        assert late.status == 200


@pytest.mark.parametrize("stream", [False, True])
async def test_a_tier_caps_answers_and_says_so(start_gate: StartGate, stream: bool) -> None:
    settings = configured(tiers={"small": {"max_output_tokens": 100}}, default_tier="small")
    async with start_gate(settings) as gate:
        told = [
            (await gate.post(CHAT, asking(stream=stream, **fields))).headers.get("x-parkway-max-tokens")
            for fields in ({}, {"max_tokens": 50}, {"max_tokens": 500}, {"max_completion_tokens": 500})
        ]
        assert told == ["100", None, "100", "100"]
        sent = [(body.get("max_tokens"), body.get("max_completion_tokens")) for body in gate.upstream.bodies]
        assert sent == [(100, None), (50, None), (100, None), (None, 100)]
        if not stream:
            response = await gate.post("/v1/responses", {"model": "echo", "input": "x", "max_output_tokens": 500})
            assert response.headers["x-parkway-max-tokens"] == "100"
            assert gate.upstream.bodies[-1]["max_tokens"] == 100
        embedding = await gate.post("/v1/embeddings", {"model": "echo", "input": "x"})
        assert embedding.status == 200
        assert "max_tokens" not in gate.upstream.bodies[-1]


async def test_a_tier_bounds_prompts_and_is_the_keys_own(start_gate: StartGate) -> None:
    tiers = {"gold": {"class": "interactive"}, "free": {"class": "batch", "max_prompt_tokens": 100}}
    async with start_gate(configured(tiers=tiers, default_tier="free")) as gate:
        refused = await gate.post(CHAT, asking("word " * 200))
        error = (await refused.json())["error"]
        assert (refused.status, error["code"]) == (400, "prompt_too_long")
        assert "at most 100" in error["message"]
        assert not gate.upstream.bodies
        assert (await gate.post(CHAT, asking("word"))).status == 200
        assert await figure(gate, 'parkway_queue_seconds_count{class="batch",model="echo"}') == 1


async def test_long_prompts_go_to_a_pool_of_their_own(start_gate: StartGate) -> None:
    places = [
        {"url": "http://short.invalid", "accepts": {"max_prompt_tokens": 200}},
        {"url": "http://long.invalid", "accepts": {"min_prompt_tokens": 201, "max_prompt_tokens": 1000}},
    ]
    settings = Settings.model_validate({"models": {"pooled": {"endpoints": places}}})
    async with start_gate(settings) as gate:
        for number, name in enumerate(("short", "long")):
            gate.registry.put(
                Endpoint(endpoint_id=f"pooled@{number}", model="pooled", url=gate.upstream_url, upstream_model=name)
            )
        async with asyncio.timeout(10):
            while (await gate.post(CHAT, {**asking(), "model": "pooled"})).status == 404:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        await gate.post(CHAT, {**asking("word " * 400), "model": "pooled"})
        assert [body["model"] for body in gate.upstream.bodies] == ["short", "long"]
        refused = await gate.post(CHAT, {**asking("word " * 2000), "model": "pooled"})
        error = (await refused.json())["error"]
        assert (refused.status, error["code"]) == (400, "prompt_too_long")
        assert "accepts" in error["message"]


async def test_who_would_still_wait_at_the_end_of_a_drain_is_told_so(start_gate: StartGate) -> None:
    settings = Settings.model_validate(
        {"models": {}, "admission": {"max_concurrency": 1}, "gateway": {"drain_s": 0.001}}
    )
    async with start_gate(settings) as gate:
        held = Held(gate)
        held.let_go()
        assert (await gate.post(CHAT, asking("measured"))).status == 200
        running = in_background(gate.post(CHAT, asking("running")))
        await soon(lambda: len(held.asked) == 2)
        waiting = in_background(gate.post(CHAT, asking("waiting")))
        await until_waiting(gate, 1)
        gate.readiness.draining = True
        refused = await waiting
        assert (refused.status, (await refused.json())["error"]["code"]) == (503, "draining")
        held.let_go()
        assert (await running).status == 200


async def test_without_admission_nothing_waits(start_gate: StartGate) -> None:
    async with start_gate(configured(enabled=False)) as gate:
        held = Held(gate)
        both = [in_background(gate.post(CHAT, asking("x"))) for _ in range(2)]
        await soon(lambda: len(held.asked) == 2)
        held.let_go(2)
        assert {(await each).status for each in both} == {200}
        await soon(lambda: len(gate.logged()) == 2)
        assert {row["queue_ms"] for row in gate.logged()} == {None}
