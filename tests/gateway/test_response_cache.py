"""The response cache through the gateway: what is given again, to whom, in which form, and what never is."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import openai
import pytest
from aiohttp import web
from sqlalchemy import select

from parkway.aggregate.response_cache.generations import clear
from parkway.launch.settings import Settings
from parkway.policy.keys import KeyStore
from parkway.router.endpoint import Endpoint
from parkway.store import schema
from tests import servers
from tests.gateway.conftest import Gate, StartGate
from tests.gateway.scripts import Said, says
from tests.gateway.test_chat import until
from tests.gateway.upstream import chunk

ASKED: dict[str, Any] = {
    "model": "echo",
    "messages": [{"role": "user", "content": "one two three"}],
    "temperature": 0,
}
CHAT = "/v1/chat/completions"
SALUT = [{"role": "user", "content": "salut"}]


def settings(**cache: object) -> Settings:
    return Settings.model_validate({"models": {}, "response_cache": {"keep": "repeatable", **cache}})


@pytest.fixture
async def cached(start_gate: StartGate) -> AsyncIterator[Gate]:
    async with start_gate(settings()) as gate:
        yield gate


async def told(gate: Gate, body: dict[str, Any], key: str | None = None, **headers: str) -> str:
    """What the gateway says of the cache."""
    response = await gate.post(CHAT, body, key, **headers)
    assert response.status == 200, await response.text()
    return response.headers["x-parkway-cache"]


async def test_a_repeated_question_is_answered_without_the_endpoint(cached: Gate) -> None:
    first = await cached.post(CHAT, ASKED)
    again = await cached.post(CHAT, {**ASKED, "user": "somebody", "metadata": {"a": "b"}})
    assert (first.headers["x-parkway-cache"], again.headers["x-parkway-cache"]) == ("miss", "hit")
    assert int(again.headers["age"]) >= 0
    assert len(cached.upstream.bodies) == 1
    asked, given = await first.json(), await again.json()
    assert given.pop("usage") == {**asked.pop("usage"), "prompt_tokens_details": {"cached_tokens": 5}}
    assert given == asked
    await until(lambda: len(cached.logged()) == 2, "both requests are in the log")
    log = cached.logged()
    assert [entry["cache"] for entry in log] == [None, "exact"]
    assert [entry["endpoint_id"] for entry in log] == ["echo-0", None]
    assert [entry["prompt_tokens"] for entry in log] == [5, None]
    assert [entry["response_id"] for entry in log] == ["chatcmpl-up", "chatcmpl-up"]
    metrics = await (await cached.get("/metrics")).text()
    assert 'parkway_cache_requests_total{result="hit"} 1.0' in metrics


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("then", [False, True])
async def test_an_answer_is_retold_in_either_form_to_the_official_client(cached: Gate, first: bool, then: bool) -> None:
    cached.upstream.script = says(cached.upstream, Said(text=["Hello ", "wörld", "!"], reasoning=["hm"]))
    async with openai.AsyncOpenAI(base_url=f"{cached.url}/v1", api_key=cached.key, max_retries=0) as client:
        texts, usages = [], []
        for stream in (first, then):
            if stream:
                events = await client.chat.completions.create(
                    **ASKED, stream=True, stream_options={"include_usage": True}
                )
                chunks = [event async for event in events]
                texts.append("".join(event.choices[0].delta.content or "" for event in chunks if event.choices))
                usages.append(chunks[-1].usage)
                assert [event.choices[0].finish_reason for event in chunks if event.choices][-1] == "stop"
            else:
                answer = await client.chat.completions.create(**ASKED)
                texts.append(answer.choices[0].message.content or "")
                usages.append(answer.usage)
    assert texts == ["Hello wörld!"] * 2
    assert len(cached.upstream.bodies) == 1
    assert usages[0].completion_tokens == usages[1].completion_tokens == 7
    assert usages[1].prompt_tokens_details.cached_tokens == usages[1].prompt_tokens == 11


async def test_usage_that_a_stream_hid_is_known_to_who_asks_next(cached: Gate) -> None:
    stream = await cached.post(CHAT, {**ASKED, "stream": True})
    assert "usage" not in await stream.text()
    answer = await (await cached.post(CHAT, ASKED)).json()
    assert (answer["usage"]["prompt_tokens"], answer["usage"]["completion_tokens"]) == (5, 3)
    hidden = await cached.post(CHAT, {**ASKED, "stream": True})
    assert hidden.headers["x-parkway-cache"] == "hit"
    assert "usage" not in await hidden.text()
    assert (await hidden.text()).endswith("data: [DONE]\n\n")
    assert len(cached.upstream.bodies) == 1


async def test_completions_embeddings_and_other_protocols(cached: Gate) -> None:
    prompt = {"model": "echo", "prompt": "p q", "temperature": 0}
    streamed = {**prompt, "stream": True}
    for body, expected in ((prompt, "miss"), (streamed, "hit"), (prompt, "hit")):
        response = await cached.post("/v1/completions", body)
        assert response.headers["x-parkway-cache"] == expected
        assert "p q" in await response.text()
    for expected in ("miss", "hit"):
        response = await cached.post("/v1/embeddings", {"model": "echo", "input": "x"})
        assert response.headers["x-parkway-cache"] == expected
        assert (await response.json())["data"][0]["embedding"] == [0.5, 0.5]
    async with anthropic.AsyncAnthropic(base_url=cached.url, api_key=cached.key, max_retries=0) as client:
        for _ in range(2):
            message = await client.messages.create(
                model="echo", max_tokens=50, messages=SALUT, extra_body={"temperature": 0}
            )
            assert message.content[0].text == "salut"
        async with client.messages.stream(
            model="echo", max_tokens=50, messages=SALUT, extra_body={"temperature": 0}
        ) as stream:
            assert await stream.get_final_text() == "salut"
    async with openai.AsyncOpenAI(base_url=f"{cached.url}/v1", api_key=cached.key, max_retries=0) as client:
        before = len(cached.upstream.bodies)
        one = await client.responses.create(model="echo", input="hi there", temperature=0)
        two = await client.responses.create(model="echo", input="hi there", temperature=0)
        assert one.output_text == two.output_text == "hi there"
        assert one.id != two.id
        assert len(cached.upstream.bodies) == before + 1
        kept = await client.responses.retrieve(two.id)
        assert kept.output_text == "hi there"
        # What was said before belongs to the question.
        three = await client.responses.create(model="echo", input="go on", temperature=0, previous_response_id=one.id)
        four = await client.responses.create(model="echo", input="go on", temperature=0)
        assert three.output_text == four.output_text
        assert len(cached.upstream.bodies) == before + 3


@pytest.mark.parametrize(
    "changed",
    [
        {"temperature": 0.7},
        {"temperature": None},
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]},
        {"web_search_options": {}, "messages": ASKED["messages"], "functions": [{"name": "f"}]},
        {"messages": [{"role": "user", "content": "x" * 150_000}]},
    ],
)
async def test_what_is_not_repeatable_is_never_looked_up(cached: Gate, changed: dict[str, Any]) -> None:
    body = {**ASKED, **changed}
    assert [await told(cached, body) for _ in range(2)] == ["bypass", "bypass"]
    assert len(cached.upstream.bodies) == 2


async def test_a_seed_is_enough_and_everything_is_kept_where_it_is_configured(
    cached: Gate, start_gate: StartGate
) -> None:
    body = {**ASKED, "temperature": 1, "seed": 7}
    assert [await told(cached, body) for _ in range(2)] == ["miss", "hit"]
    assert await told(cached, {**body, "seed": 8}) == "miss"


async def test_every_difference_makes_another_question(cached: Gate) -> None:
    system = {"role": "system", "content": "be brief"}
    others = [
        {"top_p": 0.5}, {"max_tokens": 5}, {"stop": "x"}, {"messages": [system, *ASKED["messages"]]},
        {"messages": [{"role": "user", "content": "one two three "}]}, {"an_extension": 1}, {"n": 2},
        {"response_format": {"type": "json_schema", "a": 1, "b": 2}},
        {"response_format": {"type": "json_schema", "b": 2, "a": 1}},
    ]  # fmt: skip
    for body in (ASKED, *({**ASKED, **other} for other in others)):
        assert await told(cached, body) == "miss", body
    assert await told(cached, ASKED) == "hit"


async def test_a_client_may_refuse_answers_that_were_given_before(cached: Gate) -> None:
    assert await told(cached, ASKED) == "miss"
    for headers in ({"x-parkway-cache": "off"}, {"cache-control": "no-store"}, {"cache-control": "No-Cache"}):
        assert await told(cached, ASKED, **headers) == "bypass"
    assert len(cached.upstream.bodies) == 4
    assert await told(cached, ASKED) == "hit"
    wrong = await cached.post(CHAT, ASKED, **{"x-parkway-cache": "maybe"})
    assert wrong.status == 400


async def test_a_refreshed_answer_takes_the_place_of_the_old_one(cached: Gate) -> None:
    await told(cached, ASKED)
    cached.upstream.script = says(cached.upstream, Said(text=["newer"]))
    assert await told(cached, ASKED, **{"x-parkway-cache": "refresh"}) == "bypass"
    again = await cached.post(CHAT, ASKED)
    assert again.headers["x-parkway-cache"] == "hit"
    assert (await again.json())["choices"][0]["message"]["content"] == "newer"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("finish", ["length", "content_filter"])
async def test_a_cut_answer_is_not_kept(cached: Gate, stream: bool, finish: str) -> None:
    cached.upstream.script = says(cached.upstream, Said(text=["half"], finish=finish))
    body = {**ASKED, "stream": stream, "max_tokens": 100}
    assert [await told(cached, body) for _ in range(2)] == ["miss", "miss"]


async def test_an_answer_that_ended_at_the_limit_of_its_own_request_is_kept(cached: Gate) -> None:
    cached.upstream.script = says(cached.upstream, Said(text=["half"], finish="length"))
    assert [await told(cached, {**ASKED, "max_tokens": 7}) for _ in range(2)] == ["miss", "hit"]


async def test_errors_are_not_kept(cached: Gate) -> None:
    async def fails(_: web.Request) -> web.StreamResponse:
        return web.json_response({"error": {"message": "no"}}, status=500)

    echo = cached.upstream.script
    cached.upstream.script = fails
    assert (await cached.post(CHAT, ASKED)).status == 502

    async def fails_within(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(chunk("half ") + b'data: {"error": {"message": "out of memory"}}\n\n')
        return response

    cached.upstream.script = fails_within
    broken = await cached.post(CHAT, {**ASKED, "stream": True})
    assert "out of memory" in await broken.text()
    assert "[DONE]" not in await broken.text()
    cached.upstream.script = echo
    assert [await told(cached, ASKED) for _ in range(2)] == ["miss", "hit"]
    nobody = await cached.post(CHAT, {**ASKED, "model": "nobody"})
    assert nobody.status == 404


async def test_conversations_go_on_over_answers_from_the_cache(cached: Gate) -> None:
    assert await told(cached, ASKED) == "miss"
    assert await told(cached, {**ASKED, "conversation": "a"}) == "hit"
    assert await told(cached, {**ASKED, "conversation": "a"}) == "miss"  # by now it has a history
    kept = await (await cached.get("/v1/conversations/a")).json()
    assert [message["content"] for message in kept["messages"]] == ["one two three"] * 4


async def test_a_thumb_down_takes_an_answer_back(cached: Gate) -> None:
    await told(cached, ASKED)
    given = await cached.post(CHAT, ASKED)
    assert given.headers["x-parkway-cache"] == "hit"
    said = await cached.post("/v1/feedback", {"request_id": given.headers["x-request-id"], "thumb": "down"})
    assert said.status == 201
    assert await told(cached, ASKED) == "miss"


async def test_without_the_cache_no_header_tells_of_one(gate: Gate) -> None:
    response = await gate.post(CHAT, ASKED)
    assert "x-parkway-cache" not in response.headers
    await gate.post(CHAT, ASKED, **{"x-parkway-cache": "whatever"})
    assert len(gate.upstream.bodies) == 2


class Held:
    """A script for the endpoint that says one word and the rest when it is let go."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate
        self.asked = asyncio.Event()
        self.go = asyncio.Event()

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        self.asked.set()
        if not self.gate.upstream.bodies[-1].get("stream"):
            await self.go.wait()
            return await self.gate.upstream.echo(request)
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(chunk("one "))
        await self.go.wait()
        await response.write(chunk("two") + chunk(finish="stop") + chunk(usage=True) + b"data: [DONE]\n\n")
        return response


async def wait_for_shared(gate: Gate, count: int) -> None:
    """Waits until `count` requests have joined the flights of others."""
    line = f'parkway_cache_requests_total{{result="shared"}} {count}.0'
    for _ in range(500):
        if line in await (await gate.get("/metrics")).text():
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"never: {line}")


async def known_key(gate: Gate, name: str) -> str:
    """A further key that the gateway has seen."""
    key = gate.new_key(name)
    for _ in range(200):
        if (await gate.get("/v1/models", key)).status == 200:
            return key
        await asyncio.sleep(0.05)
    raise AssertionError("the gateway never heard of the key")


@pytest.mark.parametrize("stream", [False, True])
async def test_who_asks_the_same_at_the_same_time_is_answered_together(cached: Gate, stream: bool) -> None:
    held = Held(cached)
    cached.upstream.script = held
    body = {**ASKED, "stream": stream}
    requests = [asyncio.ensure_future(cached.post(CHAT, body)) for _ in range(20)]
    await wait_for_shared(cached, 19)
    held.go.set()
    answers = await asyncio.gather(*requests)
    assert len(cached.upstream.bodies) == 1
    assert len({await answer.text() for answer in answers}) == 1
    assert sorted(answer.headers["x-parkway-cache"] for answer in answers) == ["miss", *["shared"] * 19]
    await until(lambda: len(cached.logged()) == 20, "all are in the log")
    log = cached.logged()
    assert sorted(str(entry["cache"]) for entry in log) == ["None", *["shared"] * 19]
    assert sum(entry["prompt_tokens"] or 0 for entry in log) == 5
    assert [entry["endpoint_id"] for entry in log if entry["cache"] is None] == ["echo-0"]
    assert await told(cached, ASKED) == "hit"


async def test_who_comes_later_reads_a_stream_from_its_beginning_and_then_as_it_comes(cached: Gate) -> None:
    held = Held(cached)
    cached.upstream.script = held
    body = {**ASKED, "stream": True}
    async with cached.http.post(cached.url + CHAT, json=body, headers=cached.headers()) as first:
        assert b"one" in await first.content.readany()
        async with cached.http.post(cached.url + CHAT, json=body, headers=cached.headers()) as later:
            assert later.headers["x-parkway-cache"] == "shared"
            assert b"one" in await later.content.readany()
            held.go.set()
            assert (await later.text()).endswith("data: [DONE]\n\n")
        assert (await first.text()).endswith("data: [DONE]\n\n")
    assert len(cached.upstream.bodies) == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_goes_on_for_others_when_who_asked_first_has_left(cached: Gate, stream: bool) -> None:
    held = Held(cached)
    cached.upstream.script = held
    body = {**ASKED, "stream": stream}
    first = asyncio.ensure_future(cached.post(CHAT, body))
    await held.asked.wait()
    other = asyncio.ensure_future(cached.post(CHAT, body))
    await wait_for_shared(cached, 1)
    first.cancel()
    await until(cached.logged, "the first has left")
    held.go.set()
    answer = await other
    assert "one" in await answer.text()
    assert answer.status == 200
    assert not cached.upstream.cut_off.is_set()
    await until(lambda: len(cached.logged()) == 2, "both are in the log")
    assert sorted(str(entry["outcome"]) for entry in cached.logged()) == ["cancelled", "ok"]


@pytest.mark.parametrize("stream", [False, True])
async def test_the_endpoint_is_free_when_everybody_has_left(cached: Gate, stream: bool) -> None:
    held = Held(cached)
    cached.upstream.script = held
    requests = [asyncio.ensure_future(cached.post(CHAT, {**ASKED, "stream": stream})) for _ in range(3)]
    await wait_for_shared(cached, 2)
    await held.asked.wait()
    for request in requests:
        request.cancel()
    await asyncio.wait_for(cached.upstream.cut_off.wait(), 10)
    held.go.set()
    assert await told(cached, {**ASKED, "stream": stream}) == "miss"


async def test_everybody_has_a_deadline_of_their_own(cached: Gate) -> None:
    held = Held(cached)
    cached.upstream.script = held
    hasty = asyncio.ensure_future(cached.post(CHAT, ASKED, **{"x-parkway-timeout-s": "0.3"}))
    await held.asked.wait()
    patient = asyncio.ensure_future(cached.post(CHAT, ASKED))
    assert (await hasty).status == 504
    held.go.set()
    assert (await patient).status == 200
    assert len(cached.upstream.bodies) == 1


async def test_a_failure_is_told_to_all_who_wait_and_to_nobody_later(cached: Gate) -> None:
    held = Held(cached)

    async def fails(request: web.Request) -> web.StreamResponse:
        await held(request)
        return web.json_response({"error": {"message": "no"}}, status=500)

    cached.upstream.script = fails
    requests = [asyncio.ensure_future(cached.post(CHAT, ASKED)) for _ in range(5)]
    await wait_for_shared(cached, 4)
    held.go.set()
    assert {answer.status for answer in await asyncio.gather(*requests)} == {502}
    cached.upstream.script = cached.upstream.echo
    assert await told(cached, ASKED) == "miss"


async def test_keys_do_not_fly_together(cached: Gate) -> None:
    held = Held(cached)
    cached.upstream.script = held
    other_key = await known_key(cached, "other")
    requests = [asyncio.ensure_future(cached.post(CHAT, ASKED, key)) for key in (None, other_key)]
    await until(lambda: len(cached.upstream.bodies) == 2, "both have asked")
    held.go.set()
    answers = await asyncio.gather(*requests)
    assert [answer.headers["x-parkway-cache"] for answer in answers] == ["miss", "miss"]


async def test_who_may_not_use_a_fallback_does_not_fly_with_who_may(start_gate: StartGate) -> None:
    configured = Settings.model_validate({
        "models": {"echo": {"url": "http://127.0.0.1:1/v1", "fallbacks": ["spare"]}, "spare": "http://127.0.0.1:1/v1"},
        "response_cache": {"keep": "repeatable", "scope": "everybody"},
    })  # fmt: skip
    async with start_gate(configured) as gate:
        gate.registry.put(Endpoint(endpoint_id="spare-0", model="spare", url=gate.upstream_url, upstream_model="spare"))
        _, confined = KeyStore(gate.database).create("confined", scopes=["model:echo"])
        asked, go_on = asyncio.Event(), asyncio.Event()

        async def script(request: web.Request) -> web.StreamResponse:
            if gate.upstream.bodies[-1]["model"] == "spare":
                return await gate.upstream.echo(request)
            asked.set()
            await go_on.wait()
            return web.json_response({"error": {"message": "no", "code": "broken"}}, status=500)

        gate.upstream.script = script
        async with asyncio.timeout(10):
            while "spare" not in await (await gate.get("/v1/models")).text():  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.05)
            while (await gate.get("/v1/models", confined)).status != 200:  # noqa: ASYNC110 - likewise
                await asyncio.sleep(0.05)
        first = asyncio.ensure_future(gate.post(CHAT, ASKED))
        await asked.wait()
        second = asyncio.ensure_future(gate.post(CHAT, ASKED, confined))
        await asyncio.sleep(0.2)
        go_on.set()
        may, may_not = await first, await second
        assert (may.status, may.headers["x-parkway-model"]) == (200, "spare")
        assert may_not.status == 502


async def test_answers_are_given_to_the_same_key_only_unless_it_is_configured(start_gate: StartGate) -> None:
    for scope, expected in (("key", "miss"), ("user", "miss"), ("team", "miss"), ("everybody", "hit")):
        async with start_gate(settings(scope=scope)) as gate:
            assert await told(gate, ASKED) == "miss"
            other = await known_key(gate, "other")
            assert await told(gate, ASKED, other) == expected
            assert await told(gate, ASKED, other) == "hit"
            assert await told(gate, ASKED) == "hit"


async def test_a_field_that_stands_twice_cannot_plant_an_answer(start_gate: StartGate) -> None:
    """An endpoint that reads the first of two would else answer the one and be kept under the other."""
    async with start_gate(settings(scope="everybody")) as gate:
        twice = (
            b'{"model": "echo", "temperature": 0, "messages": [{"role": "user", "content": "planted"}], '
            b'"messages": [{"role": "user", "content": "one two three"}]}'
        )
        async with gate.http.post(gate.url + CHAT, data=twice, headers=gate.headers()) as response:
            assert (await response.json())["choices"][0]["message"]["content"] == "one two three"
        assert b"planted" not in gate.upstream.raw


async def test_an_answer_is_not_found_any_more_when_its_model_is_another(cached: Gate) -> None:
    await told(cached, ASKED)
    assert await told(cached, ASKED) == "hit"
    cached.registry.put(Endpoint(endpoint_id="echo-0", model="echo", url=cached.upstream_url, upstream_model="echo-v2"))
    await becomes(cached, "miss")
    assert cached.upstream.bodies[-1]["model"] == "echo-v2"


async def test_cleared_answers_are_not_found_any_more(cached: Gate) -> None:
    await told(cached, ASKED)
    for model, expected in (("another", "hit"), ("echo", "miss"), (None, "miss")):
        with cached.database.begin() as connection:
            clear(connection, model)
        if expected == "miss":
            await becomes(cached, "miss")
        assert await told(cached, ASKED) == "hit"


async def becomes(gate: Gate, result: str) -> None:
    """Asks until the cache says what a change in the store makes it say."""
    for _ in range(100):
        if await told(gate, ASKED) == result:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"never: {result}")


async def test_gateways_share_what_is_in_redis_and_go_on_without_it(
    start_gate: StartGate, redis_server: servers.Redis
) -> None:
    configured = Settings.model_validate(
        {
            "models": {},
            "redis": {"url": redis_server.url, "prefix": f"t{redis_server.port}"},
            "response_cache": {"keep": "repeatable", "place": "redis", "redis_timeout_s": 5, "ttl_s": 60},
        }
    )
    async with start_gate(configured) as gate:
        assert await told(gate, ASKED) == "miss"
        key = gate.key
    async with start_gate(configured) as gate:
        assert await told(gate, ASKED, key) == "hit"
        redis_server.stop()
        try:
            assert await told(gate, ASKED, key) == "miss"
            assert await told(gate, ASKED, key) == "miss"
        finally:
            redis_server.start()
        assert await told(gate, ASKED, key) == "miss"
        assert await told(gate, ASKED, key) == "hit"


async def test_a_question_that_means_the_same_is_answered_with_the_answer_to_another(start_gate: StartGate) -> None:
    async with start_gate(settings(semantic=True, semantic_model="echo")) as gate:  # all its vectors are equal

        def asked(text: str, **more: object) -> dict[str, Any]:
            return {**ASKED, "messages": [{"role": "user", "content": text}], **more}

        assert await told(gate, asked("How do I count lines?")) == "miss"
        assert await told(gate, asked("How can I count lines?")) == "semantic"
        assert await told(gate, asked("How can I count lines?", stream=True)) == "semantic"
        assert await told(gate, asked("How can I count lines?", seed=1)) == "miss"
        assert await told(gate, asked("How can I count 3 lines?")) == "miss"
        assert await told(gate, asked("How can I count lines?", temperature=1)) == "bypass"
        long = "count " * 100
        assert [await told(gate, asked(long + end)) for end in ("lines", "words")] == ["miss", "miss"]
        await until(lambda: any(entry["cache"] == "semantic" for entry in gate.logged()), "it is in the log")


async def test_without_vectors_only_the_very_same_question_is_answered(start_gate: StartGate) -> None:
    async with start_gate(settings(semantic=True, semantic_model="nobody")) as gate:
        assert [await told(gate, ASKED) for _ in range(2)] == ["miss", "hit"]


async def test_kept_answers_are_those_that_guardrails_let_through(start_gate: StartGate) -> None:
    guardrails = [{"name": "mail", "check": "personal_data", "on": "output", "action": "redact"}]
    configured = Settings.model_validate(
        {"models": {}, "response_cache": {"keep": "repeatable"}, "guardrails": guardrails}
    )
    async with start_gate(configured) as gate:
        gate.upstream.script = says(gate.upstream, Said(text=["Write to ", "ann@", "example.org", " now"]))
        for stream, expected in ((True, "miss"), (False, "hit"), (True, "hit")):
            response = await gate.post(CHAT, {**ASKED, "stream": stream})
            assert response.headers["x-parkway-cache"] == expected
            assert "ann@" not in await response.text()
            assert "[EMAIL]" in (await response.text()).replace('"}}', "")


async def test_what_was_given_again_is_charged_to_nobody(start_gate: StartGate) -> None:
    configured = Settings.model_validate(
        {
            "models": {},
            "response_cache": {"keep": "repeatable"},
            "budgets": [{"kind": "key", "subject": "*", "period": "total", "tokens": 10_000}],
            "limits": {"assumed_output_tokens": 100},
        }
    )
    async with start_gate(configured) as gate:
        held = Held(gate)
        gate.upstream.script = held
        requests = [asyncio.ensure_future(gate.post(CHAT, ASKED)) for _ in range(5)]
        await wait_for_shared(gate, 4)
        held.go.set()
        await asyncio.gather(*requests)
        for _ in range(3):
            assert await told(gate, ASKED) == "hit"
        await until(lambda: len(gate.logged()) == 8, "all are in the log")
        assert sum(int(str(entry["prompt_tokens"] or 0)) for entry in gate.logged()) == 5
        await until(lambda: spent(gate) == [8], "the budget is written down")


def spent(gate: Gate) -> list[int]:
    with gate.database.read() as connection:
        return list(connection.scalars(select(schema.budgets.c.tokens)))


@pytest.mark.parametrize("scope", ["key", "everybody"])
async def test_what_only_an_endpoint_can_judge_is_relayed_as_it_came(start_gate: StartGate, scope: str) -> None:
    async with start_gate(settings(scope=scope)) as gate:
        for strange in (b"1e999", b'"\\ud800"', b"[" * 5000 + b"]" * 5000):
            body = json.dumps(ASKED).encode()[:-1] + b', "an_extension": ' + strange + b"}"
            async with gate.http.post(gate.url + CHAT, data=body, headers=gate.headers()) as response:
                cached = response.headers.get("x-parkway-cache")
                assert (response.status, cached) in ((200, "bypass"), (400, None), (502, "bypass")), strange


async def test_a_large_answer_is_given_and_not_kept(start_gate: StartGate) -> None:
    async with start_gate(settings(max_answer_bytes=1024)) as gate:
        for stream in (False, True):
            body = {**ASKED, "messages": [{"role": "user", "content": "word " * 300}], "stream": stream}
            # The second may still find the first on its way, but nothing that was kept of it.
            assert "hit" not in [await told(gate, body) for _ in range(2)]


async def test_a_stream_that_is_too_long_to_be_held_reaches_its_reader(cached: Gate) -> None:
    pieces = ["x" * 50_000] * 60
    cached.upstream.script = says(cached.upstream, Said(text=pieces))
    for _ in range(2):
        response = await cached.post(CHAT, {**ASKED, "stream": True})
        assert response.headers["x-parkway-cache"] == "miss"
        text = await response.text()
        assert text.count("x" * 50_000) == 60
        assert text.endswith("data: [DONE]\n\n")
