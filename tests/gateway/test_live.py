"""A configuration that changes under load: no request fails of it, and what must survive a change does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from parkway.router.endpoint import Endpoint
from tests.gateway.conftest import File, Gate
from tests.gateway.test_admission import CHAT, Held, asking, figure, in_background, soon, until_waiting
from tests.gateway.test_audit import stored
from tests.gateway.test_chat import HELLO, events
from tests.gateway.test_reload import settles

PLENTY: dict[str, Any] = {"limits": {"rate_per_s": 100_000, "burst": 100_000}}

ROUNDS: list[dict[str, Any]] = [
    {
        "router": {
            "balance": "power_of_two_choices", "breaker": {"failures": 2, "window_s": 3}, "keepalive_s": 0.05,
            "outliers": {"interval_s": 0.05}, "retries": {"share": 0.5, "window_s": 2}, "connections_per_endpoint": 64,
            "hedge": {"after_percentile": 90}, "dns_ttl_s": 1, "connect_timeout_s": 1, "health_interval_s": 0.05,
        },
        "gateway": {"timeout_s": 60, "max_requests": 1000, "head_timeout_s": 5, "body_timeout_s": 5, "drain_s": 1},
    },
    {
        "admission": {
            "max_concurrency": 2, "classes": {"first": {}, "last": {}}, "default_class": "first",
            "tiers": {"gold": {"class": "last"}}, "default_tier": "gold",
        },
        "audit": {"level": "denials", "queue_size": 2000, "flush_interval_s": 0.01, "on_full": "shed"},
        "traces": {"sample_share": 0.5, "max_per_s": 7, "queue_size": 100, "content": True},
        "response_cache": {"keep": "all"},
    },
    {
        "router": {"balance": "prefix_affinity", "affinity": {"block_bytes": 16}},
        "admission": {"enabled": False},
        "feedback": {"queue_size": 500, "flush_interval_s": 0.01},
        "conversations": {"max_messages": 10}, "responses": {"max_chain": 3},
        "models": {"echo": {"url": "http://127.0.0.1:1", "balance": "latency_aware", "max_concurrency": 30,
                            "accepts": {"max_prompt_tokens": 4000}, "admission": {"max_queue_requests": 9}}},
    },
]  # fmt: skip


@asynccontextmanager
async def load(gate: Gate, clients: int = 4) -> AsyncIterator[list[int]]:
    """Clients that ask without a pause, half of them for streams; the statuses of what was answered."""
    statuses: list[int] = []
    over = asyncio.Event()

    async def client(number: int) -> None:
        while not over.is_set():
            if number % 2:
                whole = (await events(gate, HELLO))[-1] == "[DONE]"
                statuses.append(200 if whole else 0)
            else:
                statuses.append((await gate.post(CHAT, HELLO)).status)

    clients_ = [asyncio.ensure_future(client(number)) for number in range(clients)]
    yield statuses
    over.set()
    await asyncio.gather(*clients_)


async def test_everything_changes_under_load(live: Gate, file: File, caplog: pytest.LogCaptureFixture) -> None:
    live.registry.put(Endpoint(endpoint_id="echo@0", model="echo", url=live.upstream_url, upstream_model="echo"))
    file.write(**PLENTY)
    await settles(caplog, "changed: limits.rate_per_s")
    async with load(live) as statuses:
        for number, sections in enumerate([*ROUNDS, {}, *ROUNDS[::-1]], start=2):
            before = len(statuses)
            file.write(**PLENTY, **sections)
            await settles(caplog, "was read again", times=number)
            await soon(lambda before=before: len(statuses) > before + 20)
    assert set(statuses) == {200}
    assert "next start" not in caplog.text
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_a_breaker_stays_open_and_its_counts_stay_true(
    live: Gate, file: File, caplog: pytest.LogCaptureFixture
) -> None:
    async def fails(_: web.Request) -> web.StreamResponse:
        return web.json_response({}, status=500)

    live.upstream.script = fails
    file.write(router={"breaker": {"failures": 4, "retry_s": 600}, "max_attempts": 1})
    await settles(caplog, "router.breaker.failures")
    for _ in range(2):
        assert (await live.post(CHAT, HELLO)).status == 502
    # Two failures in a row were counted before; one more is the third.
    file.write(router={"breaker": {"failures": 3, "retry_s": 600, "window_s": 30}, "max_attempts": 1})
    await settles(caplog, "router.breaker.failures", times=2)
    assert (await live.post(CHAT, HELLO)).status == 502
    assert (await live.post(CHAT, HELLO)).status == 503
    file.write(router={"balance": "weighted_round_robin", "connections_per_endpoint": 5})
    await settles(caplog, "changed: router.balance")
    asked = len(live.upstream.bodies)
    assert (await live.post(CHAT, HELLO)).status == 503
    assert len(live.upstream.bodies) == asked
    assert await figure(live, 'parkway_endpoint_state{endpoint="echo-0",model="echo",state="open"}') == 1


async def test_who_waits_keeps_the_place_through_new_classes(
    live: Gate, file: File, caplog: pytest.LogCaptureFixture
) -> None:
    file.write(admission={"max_concurrency": 1})
    await settles(caplog, "admission.max_concurrency")
    held = Held(live)
    running = in_background(live.post(CHAT, asking("running")))
    await soon(lambda: held.asked == ["running"])
    waiting: list[asyncio.Future[aiohttp.ClientResponse]] = []
    for text, name in (("a", "batch"), ("b", "standard"), ("c", "standard")):
        waiting.append(in_background(live.post(CHAT, asking(text), **{"x-parkway-priority": name})))
        await until_waiting(live, waiting_of(waiting, text), name)
    classes = {"urgent": {"weight": 50}, "standard": {"weight": 2}, "idle": {"max_wait_s": 1}}
    file.write(admission={"max_concurrency": 1, "classes": classes})
    await settles(caplog, "admission.classes")
    assert await figure(live, 'parkway_queue_length{class="standard",model="echo"}') == 3
    assert await figure(live, 'parkway_queue_length{class="batch",model="echo"}') == 0
    held.let_go(10)
    assert (await running).status == 200
    assert [(await each).status for each in waiting] == [200] * 3
    assert held.asked == ["running", "b", "c", "a"], "in their order, those of the class that is gone behind"
    refused = await live.post(CHAT, asking(), **{"x-parkway-priority": "batch"})
    assert refused.status == 400
    assert "urgent, standard, idle" in await refused.text()


def waiting_of(waiting: list[Any], text: str) -> int:
    """How many of the class of the last one wait."""
    return len(waiting) - 1 if text != "a" else 1


async def test_without_admission_nobody_waits_any_longer(
    live: Gate, file: File, caplog: pytest.LogCaptureFixture
) -> None:
    file.write(admission={"max_concurrency": 1})
    await settles(caplog, "admission.max_concurrency")
    held = Held(live)
    asked = [in_background(live.post(CHAT, asking(f"{number}"))) for number in range(4)]
    await until_waiting(live, 3)
    file.write(admission={"max_concurrency": 1, "enabled": False})
    await settles(caplog, "admission.enabled")
    await soon(lambda: len(held.asked) == 4)
    held.let_go(4)
    assert {(await each).status for each in asked} == {200}
    file.write(admission={"max_concurrency": 2})
    await settles(caplog, "admission.enabled", times=2)
    again = [in_background(live.post(CHAT, asking(f"{number}"))) for number in range(4)]
    await until_waiting(live, 2)
    held.let_go(4)
    assert {(await each).status for each in again} == {200}


async def test_a_smaller_queue_turns_away_who_comes_and_nobody_who_waits(
    live: Gate, file: File, caplog: pytest.LogCaptureFixture
) -> None:
    file.write(admission={"max_concurrency": 1})
    await settles(caplog, "admission.max_concurrency")
    held = Held(live)
    asked = [in_background(live.post(CHAT, asking(f"{number}"))) for number in range(4)]
    await until_waiting(live, 3)
    file.write(admission={"max_concurrency": 1, "max_key_queue_requests": 1})
    await settles(caplog, "admission.max_key_queue_requests")
    late = await live.post(CHAT, asking("late"))
    assert late.status == 503
    assert "1 requests and" in await late.text()
    held.let_go(4)
    assert {(await each).status for each in asked} == {200}


async def test_the_gateway_goes_by_its_own_new_numbers(
    live: Gate, file: File, caplog: pytest.LogCaptureFixture
) -> None:
    held = Held(live)
    old = in_background(live.post(CHAT, asking("old")))
    await soon(lambda: held.asked == ["old"])
    file.write(gateway={"timeout_s": 0.05})
    await settles(caplog, "gateway.timeout_s")
    assert (await live.post(CHAT, asking("late"))).status == 504
    held.let_go(2)
    assert (await old).status == 200, "it keeps the time-out that it began with"
    file.write(gateway={"max_requests": 1})
    await settles(caplog, "gateway.max_requests")
    running = in_background(live.post(CHAT, asking("running")))
    await soon(lambda: held.asked[-1] == "running")
    refused = await live.post(CHAT, asking("one too many"))
    assert refused.status == 503
    assert "1 requests at a time" in await refused.text()
    held.let_go(2)
    assert (await running).status == 200
    file.write(gateway={"head_timeout_s": 0.05, "body_timeout_s": 0.05})
    await settles(caplog, "gateway.head_timeout_s")
    reader, writer = await asyncio.open_connection("127.0.0.1", int(live.url.rpartition(":")[2]))
    writer.write(b"GET /healthz HT")
    assert b"408" in await reader.readline()
    writer.close()
    _, slow = await asyncio.open_connection("127.0.0.1", int(live.url.rpartition(":")[2]))
    slow.write(
        f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {live.key}\r\ncontent-length: 9\r\n\r\n".encode()
    )
    await soon(lambda: any(row["outcome"] == "deadline_exceeded" for row in live.logged()))
    slow.close()


async def test_audit_and_traces_change(live: Gate, file: File, caplog: pytest.LogCaptureFixture) -> None:
    file.write(audit={"level": "denials", "flush_interval_s": 0.01}, traces={"max_per_s": 0})
    await settles(caplog, "audit.level")
    assert (await live.post(CHAT, HELLO)).status == 200
    assert (await live.post(CHAT, HELLO, key="nonsense")).status == 401
    await soon(lambda: any(entry.kind == "deny" for entry in stored(live)))
    assert not [entry for entry in stored(live) if entry.kind == "allow"]
    file.write(audit={"flush_interval_s": 0.01}, traces={"flush_interval_s": 0.01})
    await settles(caplog, "audit.level", times=2)
    assert (await live.post(CHAT, HELLO)).status == 200
    await soon(lambda: any(entry.kind == "allow" for entry in stored(live)))

    async def traced() -> int:
        return len((await (await live.get("/v1/traces")).json())["data"])

    async with asyncio.timeout(10):
        while await traced() == 0:  # noqa: ASYNC110 - what is looked at tells nobody
            await asyncio.sleep(0.02)
    assert await traced() >= 1


async def test_a_response_cache_comes_and_goes(live: Gate, file: File, caplog: pytest.LogCaptureFixture) -> None:
    async def asked() -> int:
        before = len(live.upstream.bodies)
        assert (await live.post(CHAT, HELLO)).status == 200
        return len(live.upstream.bodies) - before

    assert [await asked() for _ in range(2)] == [1, 1]
    file.write(response_cache={"keep": "all"})
    await settles(caplog, "response_cache.keep")
    await asked()
    assert await asked() == 0
    file.write(response_cache={"keep": "all", "tools": True})
    await settles(caplog, "response_cache.tools")
    assert await asked() == 0, "what was kept is kept on"
    file.write()
    await settles(caplog, "response_cache.keep", times=2)
    assert await asked() == 1


async def test_fallbacks_and_intakes_change(live: Gate, file: File, caplog: pytest.LogCaptureFixture) -> None:
    other = Endpoint(endpoint_id="other@0", model="other", url=live.upstream_url, upstream_model="other")
    live.registry.put(other)
    live.registry.put(Endpoint(endpoint_id="down@0", model="down", url="http://127.0.0.1:9", upstream_model="down"))
    models: dict[str, Any] = {"other": {"url": live.upstream_url}, "down": {"url": "http://127.0.0.1:9"}}
    ask = {**HELLO, "model": "down"}
    async with asyncio.timeout(10):
        while (await live.post(CHAT, ask)).status == 404:  # noqa: ASYNC110 - what is looked at tells nobody
            await asyncio.sleep(0.02)
    assert (await live.post(CHAT, ask)).status in (502, 503)
    models["down"]["fallbacks"] = ["other"]
    file.write(models=models)
    await settles(caplog, "models.down.fallbacks")
    assert (await live.post(CHAT, ask)).status == 200
    models["other"]["accepts"] = {"max_prompt_tokens": 1}
    file.write(models=models)
    await settles(caplog, "models.other.accepts")
    long = await live.post(CHAT, {**HELLO, "model": "other"})
    assert long.status == 400
    assert "prompt_too_long" in await long.text()
    assert "next start" not in caplog.text
