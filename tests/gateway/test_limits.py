"""Limits and budgets through the gateway: who is refused and how, what is counted, that everything is given back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import openai
import pytest
import redis
from aiohttp import web
from sqlalchemy import select

from parkway.launch.settings import Settings
from parkway.pipeline import answer
from parkway.policy.counters import Grant, MemoryCounters
from parkway.policy.limiter import Limiter
from parkway.store import schema
from tests.gateway.conftest import Gate, StartGate
from tests.gateway.test_chat import HELLO, until
from tests.gateway.upstream import chunk
from tests.servers import Redis

BODIES: dict[str, dict[str, object]] = {
    "/v1/chat/completions": {**HELLO, "max_tokens": 100},
    "/v1/completions": {"model": "echo", "prompt": "x", "max_tokens": 100},
    "/v1/embeddings": {"model": "echo", "input": "x" * 400},
    "/v1/rerank": {"model": "echo", "query": "x", "documents": ["x" * 400]},
    "/v1/responses": {"model": "echo", "input": "x", "max_output_tokens": 100},
    "/v1/messages": {"model": "echo", "max_tokens": 100, "messages": [{"role": "user", "content": "x"}]},
}
"""A request on each surface, of more than a hundred tokens."""

PRICES = {"echo": {"url": "http://127.0.0.1:9/v1", "price": {"prompt_usd_per_million": 1000}}}
TOKENS = {"kind": "key", "period": "total", "tokens": 10_000}


@pytest.fixture
def limiters(monkeypatch: pytest.MonkeyPatch) -> list[Limiter]:
    """The limiters of the gateways that a test starts."""
    found: list[Limiter] = []
    init = Limiter.__init__

    def remembered(self: Limiter, *arguments: object, **more: object) -> None:
        init(self, *arguments, **more)  # pyright: ignore[reportArgumentType]
        found.append(self)

    monkeypatch.setattr(Limiter, "__init__", remembered)
    return found


def reserved(limiter: Limiter) -> float:
    """Everything that is reserved, and every slot that is taken."""
    counters = limiter.counters
    assert isinstance(counters, MemoryCounters)
    return sum(window.reserved for window in counters._windows.values()) + sum(counters._slots.values())


def spent(limiter: Limiter, name: str = "budget.key.total.tokens") -> float:
    counters = limiter.counters
    assert isinstance(counters, MemoryCounters)
    return sum(window.spent for (rule, _), window in counters._windows.items() if rule == name)


def settings(**sections: object) -> Settings:
    return Settings.model_validate({"models": {}, **sections})


async def error_of(response: aiohttp.ClientResponse) -> dict[str, str]:
    return (await response.json())["error"]


async def post_as(gate: Gate, body: dict[str, object] = HELLO, **headers: str) -> aiohttp.ClientResponse:
    named = {f"x-parkway-{name}": value for name, value in headers.items()}
    return await gate.post("/v1/chat/completions", body, **named)


class TestLimits:
    async def test_answers_say_how_much_is_left(self, start_gate: StartGate) -> None:
        limits = {"rate_per_s": 0.001, "burst": 3, "tokens_per_minute": 60_000}
        async with start_gate(settings(limits=limits)) as gate:
            for left in (2, 1):
                for stream in (False, True):
                    if stream and left == 1:
                        break
                    response = await post_as(gate, {**HELLO, "stream": stream, "max_tokens": 10})
                    headers = response.headers
                    assert headers["x-ratelimit-limit-requests"] == "3"
                    assert headers["x-ratelimit-limit-tokens"] == "60000"
                    assert 59_000 < int(headers["x-ratelimit-remaining-tokens"]) < 60_000
                    assert headers["x-ratelimit-reset-requests"].endswith("s")
            assert headers["x-ratelimit-remaining-requests"] == "0"
            refused = await post_as(gate)
            assert refused.status == 429
            assert int(refused.headers["retry-after"]) > 900

    @pytest.mark.parametrize("path", list(BODIES))
    async def test_refusals_say_how_much_is_left_on_every_surface(self, start_gate: StartGate, path: str) -> None:
        async def spends(_: web.Request) -> web.StreamResponse:
            return web.json_response({"id": "x", "choices": [], "usage": {"prompt_tokens": 950, "total_tokens": 950}})

        limits = {"rate_per_s": 0.01, "burst": 5, "tokens_per_s": 0.01, "tokens_burst": 1000}
        async with start_gate(settings(limits=limits)) as gate:
            gate.upstream.script = spends
            assert (await post_as(gate, {**HELLO, "max_tokens": 10})).status == 200
            refused = await gate.post(path, BODIES[path])
            assert refused.status == 429
            assert refused.headers["x-ratelimit-limit-tokens"] == "1000"
            assert refused.headers["x-ratelimit-remaining-tokens"] == "50"
            assert float(refused.headers["x-ratelimit-reset-tokens"].removesuffix("s")) == pytest.approx(95_000, abs=9)
            assert refused.headers["x-ratelimit-limit-requests"] == "5"
            assert refused.headers["x-ratelimit-remaining-requests"] == "4"

    @pytest.mark.parametrize("path", [*BODIES, "/v1/models"])
    async def test_who_knocks_too_early_is_told_it_too(self, start_gate: StartGate, path: str) -> None:
        async with start_gate(settings(limits={"rate_per_s": 0.01, "burst": 1, "tokens_per_minute": 60_000})) as gate:
            assert (await post_as(gate)).status == 200
            for _ in range(2):  # refused when it was counted, and then before it is
                refused = await (gate.post(path, BODIES[path]) if path in BODIES else gate.get(path))
                assert refused.status == 429
                assert refused.headers["retry-after"] in ("99", "100")
                assert refused.headers["x-ratelimit-limit-requests"] == "1"
                assert refused.headers["x-ratelimit-remaining-requests"] == "0"
                assert float(refused.headers["x-ratelimit-reset-requests"].removesuffix("s")) == pytest.approx(
                    100, abs=5
                )
            async with openai.AsyncOpenAI(base_url=f"{gate.url}/v1", api_key=gate.key, max_retries=0) as client:
                with pytest.raises(openai.RateLimitError) as caught:
                    await client.models.list()
            assert caught.value.response.headers["x-ratelimit-remaining-requests"] == "0"

    async def test_a_tier_that_allows_less_is_charged_less(self, start_gate: StartGate) -> None:
        admission = {"tiers": {"small": {"max_output_tokens": 50}}, "default_tier": "small"}
        async with start_gate(settings(limits={"tokens_per_minute": 500}, admission=admission)) as gate:
            for body in (HELLO, {**HELLO, "max_tokens": 5000}, {**HELLO, "n": 2}):
                answer = await post_as(gate, body)
                assert answer.status == 200
                taken = 500 - int(answer.headers["x-ratelimit-remaining-tokens"])
                assert 50 * int(body.get("n", 1)) < taken < 50 * int(body.get("n", 1)) + 60

    @pytest.mark.parametrize(
        ("limit", "words"),
        [
            ({"rate_per_s": 0.01, "burst": 1}, "0.01 requests a second (burst 1)"),
            ({"requests_per_day": 1}, "1 requests a day"),
            ({"tokens_per_minute": 1500}, "1500 tokens a minute"),
            ({"tokens_per_s": 0.1, "tokens_burst": 1500}, "0.1 tokens a second (burst 1500)"),
            ({"tokens_per_day": 1200}, "1200 tokens a day"),
        ],
    )
    @pytest.mark.parametrize("kind", ["keys", "models"])
    async def test_each_kind_refuses_in_its_own_words(
        self, start_gate: StartGate, limit: dict[str, float], words: str, kind: str
    ) -> None:
        async def spends(_: web.Request) -> web.StreamResponse:
            return web.json_response(
                {"id": "x", "choices": [], "usage": {"prompt_tokens": 900, "completion_tokens": 400}}
            )

        limits = {kind: {"test" if kind == "keys" else "echo": limit}}
        async with start_gate(settings(limits=limits)) as gate:
            gate.upstream.script = spends
            assert (await post_as(gate)).status == 200
            refused = await post_as(gate)
            assert (refused.status, refused.headers["retry-after"].isdigit()) == (429, True)
            error = await error_of(refused)
            assert error["code"] == "rate_limit_exceeded"
            assert words in error["message"]
            assert ('the key "test"' if kind == "keys" else "the model 'echo'") in error["message"].replace(
                "The", "the"
            )
            assert f"`limits.{kind}." in error["message"]
            assert len(gate.upstream.bodies) == 1

    async def test_as_many_at_once_as_there_are_slots(self, start_gate: StartGate, limiters: list[Limiter]) -> None:
        go, waiting = asyncio.Event(), asyncio.Event()

        async def waits(request: web.Request) -> web.StreamResponse:
            waiting.set()
            await go.wait()
            return await gate.upstream.echo(request)

        async with start_gate(settings(limits={"models": {"*": {"concurrency": 1}}})) as gate:
            gate.upstream.script = waits
            first = asyncio.ensure_future(post_as(gate))
            await waiting.wait()
            refused = await post_as(gate)
            assert refused.status == 429
            assert "1 requests at once" in (await error_of(refused))["message"]
            go.set()
            assert (await first).status == 200
            assert (await post_as(gate)).status == 200
            assert reserved(limiters[0]) == 0

    async def test_what_can_never_pass_is_no_matter_of_waiting(self, start_gate: StartGate) -> None:
        async with start_gate(settings(limits={"tokens_per_minute": 500})) as gate:
            refused = await post_as(gate)
            assert refused.status == 400
            assert "can never pass" in (await error_of(refused))["message"]
            assert (await post_as(gate, {**HELLO, "max_tokens": 100})).status == 200

    async def test_nonsense_counts_and_who_was_refused_is_not_read_again(self, start_gate: StartGate) -> None:
        async with start_gate(settings(limits={"rate_per_s": 0.01, "burst": 2})) as gate:
            url = f"{gate.url}/v1/chat/completions"
            statuses: list[int] = []
            for _ in range(4):
                async with gate.http.post(url, data=b"{nope", headers=gate.headers()) as response:
                    statuses.append(response.status)
            assert statuses == [400, 400, 429, 429]
            assert (await gate.get("/v1/models")).status == 429


class TestBudgets:
    async def test_a_race_of_200_for_50(self, start_gate: StartGate, limiters: list[Limiter]) -> None:
        body = {"model": "echo", "messages": [{"role": "user", "content": "x"}], "max_tokens": 5}
        prompt = -(-len(json.dumps(body)) // 4)

        async def uses_it_all(_: web.Request) -> web.StreamResponse:
            await asyncio.sleep(0.01)
            return web.json_response({"id": "x", "usage": {"prompt_tokens": prompt, "completion_tokens": 5}})

        async with start_gate(settings(budgets=[{**TOKENS, "tokens": 50 * (prompt + 5)}])) as gate:
            gate.upstream.script = uses_it_all
            answers = await asyncio.gather(*(post_as(gate, body) for _ in range(200)))
            statuses = [answer.status for answer in answers]
            assert (statuses.count(200), statuses.count(429)) == (50, 150)
            assert len(gate.upstream.bodies) == 50
            assert spent(limiters[0]) == 50 * (prompt + 5)
            assert reserved(limiters[0]) == 0

    async def test_the_refusal_says_which_how_much_and_when(self, start_gate: StartGate) -> None:
        budgets = [{"kind": "model", "subject": "echo", "period": "month", "usd": 0.001}]
        async with start_gate(Settings.model_validate({"models": PRICES, "budgets": budgets})) as gate:
            refused = await post_as(gate, {**HELLO, "max_tokens": 1})
            error = await error_of(refused)
            assert (refused.status, error["code"], error["type"]) == (429, "budget_exceeded", "insufficient_quota")
            for words in ("the model 'echo'", "$0.001000 a month", "$0.000000 spent", "renews at 20", "`budgets`"):
                assert words in error["message"]
            assert int(refused.headers["retry-after"]) >= 1
            async with openai.AsyncOpenAI(base_url=f"{gate.url}/v1", api_key=gate.key, max_retries=0) as client:
                with pytest.raises(openai.RateLimitError) as caught:
                    await client.chat.completions.create(model="echo", messages=[{"role": "user", "content": "x" * 99}])
            assert caught.value.code == "budget_exceeded"

    async def test_money_is_in_the_log_with_who_spent_it(self, start_gate: StartGate) -> None:
        async with start_gate(Settings.model_validate({"models": PRICES})) as gate:
            await post_as(gate, agent="planner", task="t-1")
            await until(gate.logged, "the request is in the log")
            (entry,) = gate.logged()
            assert (entry["agent"], entry["task"], entry["cost_usd"]) == ("planner", "t-1", 0.005)

    @pytest.mark.parametrize("kind", ["agent", "task"])
    async def test_a_runaway_loop_is_stopped_and_others_go_on(self, start_gate: StartGate, kind: str) -> None:
        async with start_gate(settings(budgets=[{"kind": kind, "period": "total", "tokens": 200}])) as gate:
            body = {**HELLO, "max_tokens": 3}
            statuses = [(await post_as(gate, body, **{kind: "loop"})).status for _ in range(30)]
            assert statuses[:5] == [200] * 5
            assert set(statuses[26:]) == {429}
            assert (await post_as(gate, body, **{kind: "other"})).status == 200
            assert (await post_as(gate, body)).status == 200

    @pytest.mark.parametrize("name", ["", "a b", "x" * 65, "<script>"])
    async def test_names_are_names(self, gate: Gate, name: str) -> None:
        assert (await post_as(gate, agent=name)).status == 400

    async def test_a_key_of_its_own_budget_a_soft_one_and_one_for_each(
        self, start_gate: StartGate, caplog: pytest.LogCaptureFixture
    ) -> None:
        budgets = [
            {**TOKENS, "subject": "test", "tokens": 8, "hard": False, "warn_at": 0.5},
            {**TOKENS, "tokens": 1},
        ]
        async with start_gate(settings(budgets=budgets)) as gate:
            for _ in range(3):
                assert (await post_as(gate)).status == 200
            warned = [record.message for record in caplog.records if "budget of key" in record.message]
            assert len(warned) == 1
            assert "8 tokens of 8 tokens spent" in warned[0]
            other = gate.new_key("other")
            await until_known(gate, other)
            assert (await gate.post("/v1/chat/completions", HELLO, key=other)).status == 429

    async def test_what_was_spent_is_there_after_a_restart(
        self, start_gate: StartGate, limiters: list[Limiter]
    ) -> None:
        configured = settings(budgets=[{**TOKENS, "tokens": 60}])
        body = {**HELLO, "max_tokens": 3}
        async with start_gate(configured) as gate:
            key = gate.key
            while (await post_as(gate, body)).status == 200:
                pass
            before = spent(limiters[0])

            def written() -> bool:
                with gate.database.read() as connection:
                    rows = connection.execute(select(schema.budgets.c.tokens)).scalars().all()
                return rows == [before]

            await until(written, "the ledger is written")
        async with start_gate(configured) as gate:
            assert spent(limiters[1]) == before
            refused = await gate.post("/v1/chat/completions", body, key=key)
            assert (refused.status, (await error_of(refused))["code"]) == (429, "budget_exceeded")

    async def test_embeddings_and_rerank_are_counted(self, start_gate: StartGate, limiters: list[Limiter]) -> None:
        async def ranks(_: web.Request) -> web.StreamResponse:
            return web.json_response({"id": "x", "results": [], "usage": {"prompt_tokens": 9, "total_tokens": 9}})

        async with start_gate(settings(budgets=[TOKENS])) as gate:
            assert (await gate.post("/v1/embeddings", {"model": "echo", "input": "some words"})).status == 200
            assert (spent(limiters[0]), reserved(limiters[0])) == (2, 0)
            gate.upstream.script = ranks
            body = {"model": "echo", "query": "q", "documents": ["a", "b"]}
            assert (await gate.post("/v1/rerank", body)).status == 200
            assert (spent(limiters[0]), reserved(limiters[0])) == (11, 0)

    async def test_the_history_of_a_conversation_is_reserved_too(
        self, start_gate: StartGate, limiters: list[Limiter]
    ) -> None:
        async with start_gate(settings(budgets=[{**TOKENS, "tokens": 1300}])) as gate:
            long = {"model": "echo", "messages": [{"role": "user", "content": "x" * 4000}], "max_tokens": 3}
            assert (await post_as(gate, {**long, "conversation": "c"})).status == 200
            refused = await post_as(gate, {**HELLO, "conversation": "c", "max_tokens": 3})
            assert (refused.status, (await error_of(refused))["code"]) == (429, "budget_exceeded")
            assert reserved(limiters[0]) == 0
            assert (await post_as(gate, {**HELLO, "max_tokens": 3})).status == 200


async def until_known(gate: Gate, key: str) -> None:
    for _ in range(200):
        if (await gate.get("/v1/models", key=key)).status == 200:
            return
        await asyncio.sleep(0.02)
    raise AssertionError("never: the key is known")


class TestGivenBack:
    """However a request ends, its reservation does, once; what was used stays used."""

    @pytest.fixture
    async def gate(self, start_gate: StartGate, limiters: list[Limiter]) -> AsyncIterator[Gate]:
        async with start_gate(settings(budgets=[TOKENS], limits={"concurrency": 1})) as gate:
            yield gate

    @staticmethod
    async def settled(gate: Gate, limiter: Limiter) -> float:
        """What was spent, once nothing is reserved."""
        await until(gate.logged, "the request is in the log")
        await until(lambda: reserved(limiter) == 0, "nothing is reserved")
        return spent(limiter)

    @pytest.mark.parametrize(
        "body",
        [
            {**HELLO, "model": "nobody"},
            {**HELLO, "n": 100},
            {**HELLO, "conversation": "../../etc"},
            {"model": "echo", "messages": []},
        ],
    )
    async def test_a_request_that_is_refused(
        self, gate: Gate, limiters: list[Limiter], body: dict[str, object]
    ) -> None:
        assert (await post_as(gate, body)).status in (400, 404)
        assert await self.settled(gate, limiters[0]) == 0

    @pytest.mark.parametrize(
        ("status", "body"), [(500, {}), (400, {"error": "no"}), (200, "no answer"), (200, {"error": "x"})]
    )
    async def test_an_endpoint_that_fails(self, gate: Gate, limiters: list[Limiter], status: int, body: object) -> None:
        async def fails(_: web.Request) -> web.StreamResponse:
            return web.json_response(body, status=status)

        gate.upstream.script = fails
        assert (await post_as(gate)).status >= 400
        assert await self.settled(gate, limiters[0]) == 0

    @pytest.mark.parametrize("stage", ["remember", "route", "infer", "aggregate", "close", "record"])
    @pytest.mark.parametrize("kind", [RuntimeError, asyncio.CancelledError])
    async def test_a_stage_that_fails(
        self,
        gate: Gate,
        limiters: list[Limiter],
        monkeypatch: pytest.MonkeyPatch,
        stage: str,
        kind: type[BaseException],
    ) -> None:
        def fails(*_: object) -> None:
            raise kind("of this test")

        settled: list[object] = []
        settle = MemoryCounters.settle

        def counted(self: MemoryCounters, grant: Grant, used: list[float]) -> None:
            settled.append(grant)
            settle(self, grant, used)

        monkeypatch.setattr(MemoryCounters, "settle", counted)
        monkeypatch.setattr(answer, stage, fails)
        try:
            assert (await post_as(gate)).status >= 500 or stage == "record"
        except aiohttp.ClientError:
            assert stage == "record"
        await until(lambda: reserved(limiters[0]) == 0, "nothing is reserved")
        assert len(settled) == 1

    @pytest.mark.parametrize("cut", [False, True])
    async def test_a_stream_that_breaks_costs_what_was_seen(
        self, gate: Gate, limiters: list[Limiter], cut: bool
    ) -> None:
        async def breaks(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse(headers={"content-type": "text/event-stream"})
            await response.prepare(request)
            for _ in range(5):
                await response.write(chunk("word"))
            if cut:
                assert request.transport is not None
                request.transport.close()
            return response

        gate.upstream.script = breaks
        await post_as(gate, {**HELLO, "stream": True})
        prompt = self.prompt_tokens({**HELLO, "stream": True})
        assert await self.settled(gate, limiters[0]) == prompt + 5

    async def test_a_client_that_leaves_in_the_middle_pays_for_what_it_saw(
        self, gate: Gate, limiters: list[Limiter]
    ) -> None:
        sent = 0

        async def endless(request: web.Request) -> web.StreamResponse:
            nonlocal sent
            response = web.StreamResponse(headers={"content-type": "text/event-stream"})
            await response.prepare(request)
            while True:
                await response.write(chunk("more"))
                sent += 1
                await asyncio.sleep(0.01)

        gate.upstream.script = endless
        body = {**HELLO, "stream": True}
        response = await gate.http.post(f"{gate.url}/v1/chat/completions", json=body, headers=gate.headers())
        await response.content.readany()
        response.close()
        await asyncio.wait_for(gate.upstream.cut_off.wait(), 10)
        prompt = self.prompt_tokens(body)
        assert prompt < await self.settled(gate, limiters[0]) <= prompt + sent + 1

    @pytest.mark.parametrize("how", ["leaves", "times out"])
    @pytest.mark.parametrize("stream", [False, True])
    async def test_who_does_not_wait_for_the_first_token_pays_for_the_prompt(
        self, gate: Gate, limiters: list[Limiter], how: str, stream: bool
    ) -> None:
        asked = asyncio.Event()

        async def hangs(_: web.Request) -> web.StreamResponse:
            asked.set()
            await asyncio.sleep(60)
            raise AssertionError("not reached")

        gate.upstream.script = hangs
        body = {**HELLO, "stream": stream}
        request = asyncio.ensure_future(post_as(gate, body, **({"timeout-s": "0.2"} if how == "times out" else {})))
        await asked.wait()
        if how == "leaves":
            request.cancel()
        await asyncio.wait([request])
        assert await self.settled(gate, limiters[0]) == self.prompt_tokens(body)

    async def test_an_answer_without_usage_costs_the_estimate(self, gate: Gate, limiters: list[Limiter]) -> None:
        async def silent(_: web.Request) -> web.StreamResponse:
            return web.json_response({"id": "x", "choices": [{"index": 0, "message": {"content": "x" * 40}}]})

        gate.upstream.script = silent
        assert (await post_as(gate)).status == 200
        assert await self.settled(gate, limiters[0]) == self.prompt_tokens(HELLO) + 10

    @staticmethod
    def prompt_tokens(body: dict[str, object]) -> int:
        """What the prompt of a body is taken to be in tokens."""
        return -(-len(json.dumps(body)) // 4)


@asynccontextmanager
async def shared_gate(start_gate: StartGate, server: Redis, **sections: object) -> AsyncIterator[Gate]:
    with redis.Redis.from_url(server.url) as client:
        client.flushall()
    async with start_gate(settings(redis={"url": server.url, "timeout_s": 5}, **sections)) as gate:
        yield gate


class TestRedis:
    async def test_limits_and_budgets_hold(self, start_gate: StartGate, redis_server: Redis) -> None:
        sections = {
            "budgets": [{**TOKENS, "tokens": 400}],
            "limits": {"concurrency": 100, "models": {"*": {"burst": 500, "rate_per_s": 1}}},
        }
        async with shared_gate(start_gate, redis_server, **sections) as gate:
            body = {"model": "echo", "messages": [{"role": "user", "content": "x"}], "max_tokens": 3}
            answers = await asyncio.gather(*(post_as(gate, body) for _ in range(80)))
            assert {answer.status for answer in answers} == {200, 429}
            for answer in answers:
                assert ("x-ratelimit-remaining-requests" in answer.headers) == (answer.status == 200)
            while (last := await post_as(gate, body)).status == 200:
                pass
            assert (await error_of(last))["code"] == "budget_exceeded"
            assert len(gate.upstream.bodies) <= 50

    async def test_refusals_say_how_much_is_left(self, start_gate: StartGate, redis_server: Redis) -> None:
        async with shared_gate(start_gate, redis_server, limits={"tokens_per_day": 1200}) as gate:
            for _ in range(5):
                assert (await post_as(gate)).status == 200
            for _ in range(2):
                refused = await post_as(gate, {**HELLO, "max_tokens": 1150})
                assert (refused.status, refused.headers["x-ratelimit-remaining-tokens"]) == (429, "1160")
                assert refused.headers["x-ratelimit-limit-requests"] == "1000"
            assert (await post_as(gate, {**HELLO, "max_tokens": 1000})).status == 200

    async def test_a_client_that_leaves_gives_its_slot_back(self, start_gate: StartGate, redis_server: Redis) -> None:
        asked = asyncio.Event()

        async def hangs(_: web.Request) -> web.StreamResponse:
            asked.set()
            await asyncio.sleep(60)
            raise AssertionError("not reached")

        async with shared_gate(start_gate, redis_server, limits={"concurrency": 1}) as gate:
            gate.upstream.script = hangs
            request = asyncio.ensure_future(post_as(gate))
            await asked.wait()
            assert (await post_as(gate)).status == 429
            request.cancel()
            await asyncio.wait_for(gate.upstream.cut_off.wait(), 10)
            gate.upstream.script = gate.upstream.echo
            for _ in range(100):
                if (await post_as(gate)).status == 200:
                    return
                await asyncio.sleep(0.02)
            raise AssertionError("never: the slot is free")

    async def test_an_outage_is_in_the_metrics_and_stops_nobody(self, start_gate: StartGate) -> None:
        server = Redis()
        async with shared_gate(start_gate, server) as gate:
            assert (await post_as(gate)).status == 200
            assert b"parkway_limits_outage 0.0" in await (await gate.get("/metrics")).read()
            server.stop()
            assert (await post_as(gate)).status == 200
            assert b"parkway_limits_outage 1.0" in await (await gate.get("/metrics")).read()
