"""Streams that become longer than was reserved for them: budgets pay as they go on, and end them when they cannot."""

from __future__ import annotations

import asyncio
import json

import openai
import pytest
from aiohttp import web

from parkway.policy.limiter import Limiter
from tests.gateway.conftest import Gate, StartGate
from tests.gateway.test_chat import HELLO, until
from tests.gateway.test_limits import PRICES, limiters, reserved, settings, shared_gate, spent, until_known
from tests.gateway.test_response_cache import wait_for_shared
from tests.gateway.upstream import Handler, chunk
from tests.servers import Redis

__all__ = ["limiters"]  # the fixture

ASKED = {**HELLO, "stream": True}
PROMPT = -(-len(json.dumps(ASKED)) // 4)
LIMITS = {"assumed_output_tokens": 16}


def words(number: int, *, at_once: bool = False, chat: bool = True) -> Handler:
    """An endpoint that says so many words, a token each, and does not say how many they were."""

    def piece(word: str) -> bytes:
        return chunk(word) if chat else chunk().replace(b'"delta": {}', b'"text": "' + word.encode() + b'"')

    async def says(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        pieces = [*(piece("w ") for _ in range(number)), chunk(finish="stop"), b"data: [DONE]\n\n"]
        for data in [b"".join(pieces)] if at_once else pieces:
            await response.write(data)
            await asyncio.sleep(0)
        if number >= 300:
            await asyncio.sleep(60)  # unless it is cut
        return response

    return says


async def streamed(gate: Gate, body: dict[str, object] = ASKED, path: str = "/v1/chat/completions") -> str:
    answer = await gate.post(path, body)
    assert answer.status == 200
    return await answer.text()


def tokens(limit: int, **more: object) -> dict[str, object]:
    return {"kind": "key", "period": "total", "tokens": limit, **more}


async def settled(limiter: Limiter) -> float:
    await until(lambda: reserved(limiter) == 0, "nothing is reserved")
    return spent(limiter)


class TestCut:
    @pytest.mark.parametrize("at_once", [False, True])
    async def test_a_budget_for_a_third_of_a_stream_ends_it_there(
        self, start_gate: StartGate, limiters: list[Limiter], at_once: bool
    ) -> None:
        async with start_gate(settings(limits=LIMITS, budgets=[tokens(100)])) as gate:
            gate.upstream.script = words(300, at_once=at_once)
            text = await streamed(gate)
            assert text.count('"w "') == 100 - PROMPT
            assert "[DONE]" not in text
            error = json.loads(text.strip().split("data: ")[-1])["error"]
            assert (error["code"], error["type"]) == ("budget_exceeded", "insufficient_quota")
            for said in ('the key "test"', "100 tokens in total", "the rest of this answer", "`budgets`"):
                assert said in error["message"]
            assert await settled(limiters[0]) == 100
            await asyncio.wait_for(gate.upstream.cut_off.wait(), 10)
            await until(gate.logged, "the request is in the log")
            (entry,) = gate.logged()
            assert (entry["status"], entry["outcome"]) == (200, "budget_exceeded")
            assert (await gate.post("/v1/chat/completions", {**HELLO, "max_tokens": 1})).status == 429

    async def test_money_ends_it_as_tokens_do(self, start_gate: StartGate, limiters: list[Limiter]) -> None:
        models = {"echo": {**PRICES["echo"], "price": {"completion_usd_per_million": 1000}}}
        budgets = [{"kind": "model", "subject": "echo", "period": "total", "usd": 0.1}]
        async with start_gate(settings(limits=LIMITS, budgets=budgets, models=models)) as gate:
            gate.upstream.script = words(300)
            text = await streamed(gate)
            assert text.count('"w "') == 100
            assert "$0.100000 in total" in text
            await settled(limiters[0])
            assert spent(limiters[0], "budget.model.total.micro_usd") == 100_000

    async def test_streams_at_the_same_time_share_what_there_is(
        self, start_gate: StartGate, limiters: list[Limiter]
    ) -> None:
        async with start_gate(settings(limits=LIMITS, budgets=[tokens(300)])) as gate:
            gate.upstream.script = words(300)
            texts = await asyncio.gather(*(streamed(gate) for _ in range(5)))
            assert all("budget_exceeded" in text for text in texts)
            assert sum(text.count('"w "') for text in texts) == await settled(limiters[0]) - 5 * PROMPT
            assert spent(limiters[0]) <= 300

    async def test_the_first_event_may_be_too_much_already(
        self, start_gate: StartGate, limiters: list[Limiter]
    ) -> None:
        async def shouts(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse(headers={"content-type": "text/event-stream"})
            await response.prepare(request)
            await response.write(chunk("w" * 1000))
            return response

        async with start_gate(settings(limits=LIMITS, budgets=[tokens(100)])) as gate:
            gate.upstream.script = shouts
            answer = await gate.post("/v1/chat/completions", ASKED)
            assert (answer.status, (await answer.json())["error"]["code"]) == (429, "budget_exceeded")
            assert await settled(limiters[0]) == PROMPT + 16

    @pytest.mark.parametrize(
        ("path", "body", "told"),
        [
            ("/v1/completions", {"prompt": "x"}, '"code":"budget_exceeded"'),
            ("/v1/responses", {"input": "x"}, "event: response.failed"),
        ],
    )
    async def test_it_is_told_in_every_protocol_in_which_answers_may_be_unbounded(
        self, start_gate: StartGate, limiters: list[Limiter], path: str, body: dict[str, object], told: str
    ) -> None:
        async with start_gate(settings(limits=LIMITS, budgets=[tokens(100)])) as gate:
            gate.upstream.script = words(300, chat=path != "/v1/completions")
            text = await streamed(gate, {"model": "echo", "stream": True, **body}, path)
            assert told in text
            assert "the rest of this answer" in text
            assert await settled(limiters[0]) == 100

    async def test_openais_client_raises(self, start_gate: StartGate) -> None:
        async with start_gate(settings(limits=LIMITS, budgets=[tokens(100)])) as gate:
            gate.upstream.script = words(300)
            seen = 0
            async with openai.AsyncOpenAI(base_url=f"{gate.url}/v1", api_key=gate.key, max_retries=0) as client:
                with pytest.raises(openai.APIError, match="the rest of this answer"):
                    async for _ in await client.chat.completions.create(
                        model="echo", messages=[{"role": "user", "content": "x"}], stream=True
                    ):
                        seen += 1
            assert 50 < seen < 100

    async def test_in_redis(self, start_gate: StartGate, redis_server: Redis) -> None:
        sections = {"limits": LIMITS, "budgets": [tokens(100)]}
        async with shared_gate(start_gate, redis_server, **sections) as gate:
            gate.upstream.script = words(300)
            assert (await streamed(gate)).count('"w "') == 100 - PROMPT

            async def nothing_is_reserved() -> bool:
                (budget,) = (await (await gate.get("/v1/budgets")).json())["data"]
                return (budget["spent"], budget["reserved"]) == (100, 0)

            for _ in range(100):
                if await nothing_is_reserved():
                    return
                await asyncio.sleep(0.02)
            raise AssertionError("never: nothing is reserved")


class TestPaid:
    async def test_what_a_budget_can_pay_comes_whole(self, start_gate: StartGate, limiters: list[Limiter]) -> None:
        async with start_gate(settings(limits=LIMITS, budgets=[tokens(200 + PROMPT)])) as gate:
            gate.upstream.script = words(200)
            text = await streamed(gate)
            assert text.count('"w "') == 200
            assert text.endswith("data: [DONE]\n\n")
            assert await settled(limiters[0]) == 200 + PROMPT

    @pytest.mark.parametrize(
        ("budget", "body", "limits"),
        [
            ({"hard": False}, ASKED, {}),  # one that only warns
            ({}, {**ASKED, "max_tokens": 50}, {}),  # reserved whole; that an endpoint says more is the endpoint's
            ({"kind": "team", "subject": "red"}, ASKED, {}),  # somebody else's
            ({"tokens": 10_000}, ASKED, {"tokens_per_minute": 100}),  # limits give credit for what has begun
        ],
    )
    async def test_others_are_not_cut(
        self, start_gate: StartGate, budget: dict[str, object], body: dict[str, object], limits: dict[str, object]
    ) -> None:
        sections = {"limits": {**LIMITS, **limits}, "budgets": [tokens(100) | budget]}
        async with start_gate(settings(**sections)) as gate:
            gate.upstream.script = words(200)
            assert (await streamed(gate, body)).count('"w "') == 200

    @pytest.mark.parametrize("room", [60, 80])
    async def test_a_tier_that_allows_more_than_is_assumed_is_paid_for_as_it_comes(
        self, start_gate: StartGate, limiters: list[Limiter], room: int
    ) -> None:
        admission = {"tiers": {"wide": {"max_output_tokens": 80}}, "default_tier": "wide"}
        async with start_gate(settings(limits=LIMITS, budgets=[tokens(PROMPT + room)], admission=admission)) as gate:
            gate.upstream.script = words(80)
            text = await streamed(gate)
            assert (text.count('"w "'), "[DONE]" in text) == (room, room == 80)
            assert await settled(limiters[0]) == PROMPT + room


async def test_who_shares_an_answer_is_not_told_of_anothers_budget(
    start_gate: StartGate, limiters: list[Limiter]
) -> None:
    go = asyncio.Event()

    async def waits(request: web.Request) -> web.StreamResponse:
        await go.wait()
        return await words(300)(request)

    cache = {"keep": "repeatable", "scope": "everybody"}
    budgets = [tokens(100, subject="test")]
    async with start_gate(settings(limits=LIMITS, budgets=budgets, response_cache=cache)) as gate:
        gate.upstream.script = waits
        other = gate.new_key("other")
        await until_known(gate, other)
        body = {**ASKED, "temperature": 0}
        first = asyncio.ensure_future(gate.post("/v1/chat/completions", body))
        await until(lambda: bool(gate.upstream.bodies), "the endpoint is asked")
        second = asyncio.ensure_future(gate.post("/v1/chat/completions", body, key=other))
        await wait_for_shared(gate, 1)
        go.set()
        told = [await (await each).text() for each in (first, second)]
        assert '"code":"budget_exceeded"' in told[0]
        assert '"code":"stream_interrupted"' in told[1]
        assert '"test"' not in told[1]
        assert await settled(limiters[0]) == 100
