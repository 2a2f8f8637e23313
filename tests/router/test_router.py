"""Sending a call: what goes out, what is tried again, and what is told when nothing helps."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from contextlib import AsyncExitStack

import pytest

from parkway.core.errors import DeadlineExceeded, EndpointFailed, ModelNotFound, NoEndpoint, Overloaded
from parkway.core.trace import Trace
from parkway.router.config import RouterConfig
from parkway.router.endpoint import EndpointSource
from parkway.router.router import Router
from parkway.router.view import View
from tests.router.conftest import NewRouter, call, until
from tests.router.upstreams import (
    ANSWER,
    Behaviour,
    Exchange,
    Upstream,
    answer,
    close_unanswered,
    cut_within_body,
    hang,
    refusal,
    refused_url,
    reset_unanswered,
    speak_garbage,
    stream,
    unaccepting_url,
    upstream,
)

MAX_BYTES = 1 << 20


async def ask(router: Router, **changes: object) -> tuple[int, bytes, str, int]:
    """Status, body, endpoint and attempts of one answer."""
    async with router.send(call(**changes)) as reply:  # type: ignore[arg-type]
        return reply.status, await reply.read(MAX_BYTES), reply.endpoint.endpoint_id, reply.attempts


def outstanding(router: Router) -> int:
    return sum(candidate.outstanding for candidate in router._fleet.candidates())


async def test_the_body_is_relayed_byte_by_byte(new_router: NewRouter) -> None:
    body = b'{ "model" : "m", "messages":[ ],  "temperature": 1.0 }'
    async with upstream() as up:
        router = await new_router(up.endpoint())
        assert await ask(router, body=body) == (200, ANSWER, "e1", 1)
        (request,) = up.requests
    assert (request.method, request.path, request.body) == ("POST", "/v1/chat/completions", body)


@pytest.mark.parametrize(("source", "told"), [("local", "key_1"), ("config", None)])
async def test_only_our_own_engines_learn_who_asks(
    new_router: NewRouter, source: EndpointSource, told: str | None
) -> None:
    async with upstream() as up:
        router = await new_router(up.endpoint(source=source))
        await ask(router, client="key_1")
    assert up.requests[0].headers.get("x-parkway-client") == told


async def test_the_headers_are_ours(new_router: NewRouter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPSTREAM_KEY", "sk-1\n")
    trace = Trace("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", "vendor=1", sampled=True)
    async with upstream() as up:
        router = await new_router(up.endpoint(api_key_env="UPSTREAM_KEY"))
        await ask(router, trace=trace)
        (request,) = up.requests
    assert request.headers["user-agent"].startswith("parkway/")
    del request.headers["user-agent"], request.headers["host"]
    assert request.headers == {
        "authorization": "Bearer sk-1",
        "content-type": "application/json",
        "content-length": "13",
        "accept-encoding": "identity",
        "x-request-id": "req_1",
        "traceparent": f"00-4bf92f3577b34da6a3ce929d0e0e4736-{trace.spans[0].span_id}-01",
        "tracestate": "vendor=1",
    }


async def test_without_a_key_no_authorization_is_sent(new_router: NewRouter) -> None:
    async with upstream() as up:
        await ask(await new_router(up.endpoint()))
        assert "authorization" not in up.requests[0].headers


async def test_the_endpoint_sees_its_own_name_of_the_model(new_router: NewRouter) -> None:
    async with upstream() as up:
        router = await new_router(up.endpoint(upstream_model='org/"model"'))
        await ask(router, body=b'{"temperature": 1.50, "model": "m", "messages": [ 1,  2 ]}')
        body = up.requests[0].body
    assert json.loads(body) == {"temperature": 1.5, "model": 'org/"model"', "messages": [1, 2]}
    assert b"1.50" in body
    assert b"[ 1,  2 ]" in body


async def test_any_status_of_the_endpoint_is_given_back(new_router: NewRouter) -> None:
    async with upstream(answer(b"{}", 400), answer(b"{}", 500), answer(b"", 302, b"location: /\r\n")) as up:
        router = await new_router(up.endpoint())
        assert [(await ask(router))[0] for _ in range(3)] == [400, 500, 302]
        assert len(up.requests) == 3


async def test_connections_are_used_again(new_router: NewRouter) -> None:
    async with upstream(stream(b"a"), answer()) as up:
        router = await new_router(up.endpoint())
        await asyncio.wait_for(up.checked.wait(), 10)
        for _ in range(10):
            await ask(router)
        assert up.connections <= 2  # the health check may have needed one of its own


async def test_requests_are_spread(new_router: NewRouter) -> None:
    async with upstream() as one, upstream() as two:
        router = await new_router(one.endpoint("e1"), two.endpoint("e2"))
        picked = Counter([(await ask(router))[2] for _ in range(20)])
    assert picked == {"e1": 10, "e2": 10}


async def test_a_busy_endpoint_is_spared(new_router: NewRouter) -> None:
    async with upstream(hang) as slow, upstream() as fast:
        router = await new_router(slow.endpoint("e1", weight=10_000), fast.endpoint("e2", weight=10_000))
        waiting = asyncio.ensure_future(ask(router))
        await until(lambda: slow.requests)
        assert {(await ask(router))[2] for _ in range(10)} == {"e2"}
        waiting.cancel()


async def test_an_unknown_model(new_router: NewRouter) -> None:
    router = await new_router()
    with pytest.raises(ModelNotFound):
        await ask(router)


@pytest.mark.parametrize("fault", [close_unanswered, reset_unanswered, speak_garbage])
async def test_a_fault_before_the_answer_leads_to_another_endpoint(new_router: NewRouter, fault: Behaviour) -> None:
    async with upstream(fault) as bad, upstream() as good:
        router = await new_router(bad.endpoint("e1", weight=10_000), good.endpoint("e2"))
        assert await ask(router) == (200, ANSWER, "e2", 2)
        assert outstanding(router) == 0


@pytest.mark.parametrize("url", ["refused", "http://no-such-host.invalid/v1", "unaccepting"])
async def test_an_unreachable_endpoint_leads_to_another(new_router: NewRouter, url: str) -> None:
    with unaccepting_url() as unaccepting:
        address = {"refused": refused_url(), "unaccepting": unaccepting}.get(url, url)
        async with upstream() as good:
            bad = good.endpoint("e1", url=address, weight=10_000)
            router = await new_router(bad, good.endpoint("e2"), connect_timeout_s=0.2)
            assert await ask(router) == (200, ANSWER, "e2", 2)


async def test_the_only_endpoint_is_asked_once_more_when_it_cannot_have_seen_the_request(
    new_router: NewRouter,
) -> None:
    router = await new_router(Upstream([]).endpoint(url=refused_url()))
    with pytest.raises(EndpointFailed, match=r"endpoint e1 did not answer \(attempt 2\).*connection refused") as caught:
        await ask(router)
    assert caught.value.retry_after_s
    assert "127.0.0.1" not in caught.value.message
    assert outstanding(router) == 0


async def test_an_https_address_without_tls_is_told(new_router: NewRouter) -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(5)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(plain, "127.0.0.1", 0) as server:
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        with pytest.raises(EndpointFailed, match="no TLS"):
            await ask(await new_router(Upstream([]).endpoint(url=url)))


async def test_the_only_endpoint_is_not_asked_again_after_it_saw_the_request(new_router: NewRouter) -> None:
    async with upstream(close_unanswered) as up:
        router = await new_router(up.endpoint())
        with pytest.raises(EndpointFailed, match="closed the connection before its answer"):
            await ask(router)
        assert len(up.requests) == 1


async def test_an_idle_connection_that_is_being_closed_costs_nothing(new_router: NewRouter) -> None:
    async with upstream(answer(), close_unanswered, answer()) as up:
        router = await new_router(up.endpoint())
        await ask(router)
        assert await ask(router) == (200, ANSWER, "e1", 2)
        assert len(up.requests) == 3


async def test_attempts_are_bounded(new_router: NewRouter) -> None:
    async with AsyncExitStack() as stack:
        ups = [await stack.enter_async_context(upstream(close_unanswered)) for _ in range(5)]
        router = await new_router(*[up.endpoint(f"e{i}") for i, up in enumerate(ups)], max_attempts=3)
        with pytest.raises(EndpointFailed, match="attempt 3"):
            await ask(router)
        assert sum(len(up.requests) for up in ups) == 3


@pytest.mark.parametrize(("status", "code"), [(503, "overloaded"), (503, "draining"), (502, "overloaded")])
async def test_a_busy_answer_leads_to_another_endpoint(new_router: NewRouter, status: int, code: str) -> None:
    async with upstream(refusal(status, code)) as busy, upstream() as free:
        router = await new_router(busy.endpoint("e1", weight=10_000), free.endpoint("e2"))
        assert await ask(router) == (200, ANSWER, "e2", 2)
        assert outstanding(router) == 0


async def test_a_busy_answer_is_given_back_where_there_is_no_other(new_router: NewRouter) -> None:
    async with upstream(refusal(503, "overloaded")) as up:
        status, body, _, attempts = await ask(await new_router(up.endpoint()))
        assert (status, json.loads(body)["error"]["code"], attempts) == (503, "overloaded", 1)


@pytest.mark.parametrize(
    "behaviour",
    [refusal(503, "model_loading"), answer(b"<html>", 502), answer(b"", 504), refusal(500, "internal_error"),
     refusal(429, "rate_limit_exceeded"), cut_within_body(status=500)],
)  # fmt: skip
async def test_a_failed_answer_leads_to_another_endpoint(new_router: NewRouter, behaviour: Behaviour) -> None:
    async with upstream(behaviour) as bad, upstream() as good:
        router = await new_router(bad.endpoint("e1", weight=10_000), good.endpoint("e2"))
        assert await ask(router) == (200, ANSWER, "e2", 2)
        assert outstanding(router) == 0


@pytest.mark.parametrize(
    "behaviour",
    [refusal(400, "invalid_request"), answer(b"<html>", 404), refusal(504, "deadline_exceeded"),
     stream(b"x" * 200_000)],
)  # fmt: skip
async def test_other_answers_are_not_tried_again(new_router: NewRouter, behaviour: Behaviour) -> None:
    async with upstream(behaviour) as up, upstream() as other:
        router = await new_router(up.endpoint("e1", weight=10_000), other.endpoint("e2"))
        _, body, endpoint_id, attempts = await ask(router)
        assert (endpoint_id, attempts) == ("e1", 1)
        assert len(body) in (0, 6, 200_000) or b"error" in body


async def test_the_deadline_ends_the_wait_for_an_answer(new_router: NewRouter) -> None:
    async with upstream(hang) as up, upstream() as other:
        router = await new_router(up.endpoint("e1", weight=10_000), other.endpoint("e2"))
        with pytest.raises(DeadlineExceeded, match="e1"):
            await ask(router, deadline_s=0.2)
        assert not other.requests
        assert outstanding(router) == 0


async def test_a_deadline_that_has_passed_sends_nothing(new_router: NewRouter) -> None:
    async with upstream() as up:
        with pytest.raises(DeadlineExceeded):
            await ask(await new_router(up.endpoint()), deadline_s=-1)
        assert not up.requests


async def test_a_caller_who_leaves_before_the_answer_frees_the_endpoint(new_router: NewRouter) -> None:
    left = asyncio.Event()

    async def hang_and_tell(exchange: Exchange) -> None:
        await hang(exchange)
        left.set()

    async with upstream(hang_and_tell) as up:
        router = await new_router(up.endpoint())
        waiting = asyncio.ensure_future(ask(router))
        await until(lambda: up.requests)
        waiting.cancel()
        await asyncio.wait_for(left.wait(), 10)
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert outstanding(router) == 0


async def test_too_many_at_once_are_refused(new_router: NewRouter) -> None:
    async with upstream(hang) as up:
        router = await new_router(up.endpoint(), connections_per_endpoint=2)
        waiting = [asyncio.ensure_future(ask(router)) for _ in range(2)]
        await until(lambda: len(up.requests) == 2)
        with pytest.raises(Overloaded):
            await ask(router)
        for task in waiting:
            task.cancel()


async def test_an_endpoint_that_compresses_unasked_is_told_apart(new_router: NewRouter) -> None:
    async with upstream(answer(b"\x1f\x8b", 200, b"content-encoding: gzip\r\n")) as up:
        with pytest.raises(EndpointFailed, match="compressed"):
            await ask(await new_router(up.endpoint()))


async def test_a_change_of_the_view_is_followed_while_requests_run(new_router: NewRouter) -> None:
    gate = asyncio.Event()
    async with upstream(stream(b"a", b"b", pause=gate)) as old, upstream() as new:
        view = View([old.endpoint("e1")])
        router = await new_router(view=view)
        gate.set()
        async with router.send(call()) as reply:
            chunks = reply.chunks()
            assert await anext(chunks) == b"a"
            view.load([new.endpoint("e2")])
            assert (await ask(router))[2] == "e2"
            gate.set()
            assert [chunk async for chunk in chunks] == [b"b"]
        view.load([new.endpoint("e2", state="down")])
        with pytest.raises(NoEndpoint):
            await ask(router)


async def test_retries_are_a_share_of_the_requests(new_router: NewRouter) -> None:
    """A fleet that fails as a whole gets a fifth more requests, and not three times as many."""
    async with AsyncExitStack() as stack:
        ups = [await stack.enter_async_context(upstream(refusal(500, "internal_error"))) for _ in range(3)]
        router = await new_router(
            *[up.endpoint(f"e{number}") for number, up in enumerate(ups)],
            retries={"share": 0.2, "min_per_s": 0},
            breaker={"failures": 100, "requests": 100_000},
        )
        for _ in range(50):
            assert (await ask(router))[0] == 500
        assert sum(len(up.requests) for up in ups) == 60
        assert router.counts.of("retries") == {"m": 10}


async def test_an_endpoint_that_asks_for_a_pause_gets_it(new_router: NewRouter) -> None:
    async with upstream(answer(b"{}", 429, b"retry-after: 30\r\n")) as tired, upstream() as good:
        router = await new_router(tired.endpoint("e1", weight=10_000), good.endpoint("e2"))
        for _ in range(5):
            assert (await ask(router))[2] == "e2"
        assert len(tired.requests) == 1
        assert ("m", "e1", "resting") in router.conditions()


async def test_a_breaker_opens_and_one_request_closes_it(new_router: NewRouter) -> None:
    async with upstream(*[refusal(500, "internal_error")] * 3, answer()) as up:
        router = await new_router(up.endpoint(), breaker={"failures": 3, "retry_s": 0.2})
        for _ in range(3):
            assert (await ask(router))[0] == 500
        with pytest.raises(NoEndpoint, match="status 500"):
            await ask(router)
        assert len(up.requests) == 3
        await until(lambda: router._fleet.candidates()[0].circuit.renew(time.monotonic()))
        answers = await asyncio.gather(*[ask(router) for _ in range(3)], return_exceptions=True)
        assert [isinstance(each, NoEndpoint) for each in answers] == [False, True, True]
        assert (await ask(router))[0] == 200


async def test_short_deadlines_of_clients_open_nothing(new_router: NewRouter) -> None:
    async with upstream(hang) as up:
        router = await new_router(up.endpoint(), breaker={"failures": 1, "slow_s": 10})
        for _ in range(3):
            with pytest.raises(DeadlineExceeded):
                await ask(router, deadline_s=0.05)
        assert list(router.conditions()) == [("m", "e1", "healthy")]


async def test_a_model_may_go_while_it_answers(new_router: NewRouter) -> None:
    async with upstream() as one, upstream() as two:
        view = View([one.endpoint("e1"), two.endpoint("e2")])
        router = await new_router(view=view)
        async with router.send(call()) as reply:
            assert router.could_be_another(reply)
            view.load([])
            assert not router.could_be_another(reply)
            assert await reply.read(MAX_BYTES) == ANSWER


async def test_each_model_is_balanced_in_its_own_way() -> None:
    endpoints = [Upstream([], url="http://h/v1").endpoint(name, model=name) for name in ("a", "b")]
    router = Router(View(endpoints), RouterConfig(balance="latency_aware"), balance={"b": "prefix_affinity"})
    assert [router._fleet.pool(name).balance for name in ("a", "b")] == ["latency_aware", "prefix_affinity"]


def test_who_may_answer_instead() -> None:
    router = Router(View(), RouterConfig(), fallbacks={"m": ["a", "b"]})
    assert router.models_for("m", lambda _: True) == ["m", "a", "b"]
    assert router.models_for("m", lambda model: model == "b") == ["m", "b"]
    assert router.models_for("x", lambda _: True) == ["x"]
