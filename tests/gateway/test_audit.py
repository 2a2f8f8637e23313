"""Every decision of a running gateway stands in the audit log, in one chain."""

from __future__ import annotations

import asyncio

from aiohttp import web

from parkway.launch.settings import Settings
from parkway.policy.chain import Entry, decode_entry, links
from parkway.policy.keys import KeyStore
from parkway.policy.verification import verify
from parkway.store.sql import Database
from tests.gateway.conftest import Gate, StartGate
from tests.gateway.test_chat import HELLO, until


def settings(**sections: object) -> Settings:
    quick = {"models": {}, "audit": {"flush_interval_s": 0.01}}
    return Settings.model_validate({**quick, **sections})


def stored(gate: Gate) -> list[Entry]:
    with gate.database.read() as connection:
        assert verify(lambda: links(connection)).faults == []
        return [decode_entry(link.entry) for link in links(connection)]


async def entries(gate: Gate, count: int, *kinds: str) -> list[Entry]:
    """The entries of these kinds, once there are `count`."""
    found: list[Entry] = []

    def enough() -> bool:
        found[:] = [each for each in stored(gate) if each.kind in kinds]
        return len(found) >= count

    await until(enough, f"{count} entries of {kinds}")
    return found


async def test_an_answered_request_is_an_entry(start_gate: StartGate) -> None:
    async with start_gate(settings()) as gate:
        answer = await gate.post("/v1/chat/completions", HELLO)
        (found,) = await entries(gate, 1, "allow")
        assert (found.action, found.model, found.outcome) == ("chat", "echo", "")
        assert found.key_id == gate.key.split("-")[1]
        assert found.request_id == answer.headers["x-request-id"]
        assert not found.source, "who is known is not noted by the address"
        text = b"".join(gate_bytes(gate))
        assert b"one two" not in text, "no word of what was asked"


def gate_bytes(gate: Gate) -> list[bytes]:
    with gate.database.read() as connection:
        return [link.entry for link in links(connection)]


async def test_strangers_are_denied_with_their_address_and_without_their_secret(start_gate: StartGate) -> None:
    async with start_gate(settings(audit={"flush_interval_s": 0.01, "repeats_per_minute": 3})) as gate:
        secret = "S" * 43
        for _ in range(10):
            assert (await gate.post("/v1/chat/completions", HELLO, key=f"pk-{'a' * 12}-{secret}")).status == 401
        assert (await gate.get("/v1/models", key="nonsense")).status == 401
        async with gate.http.post(f"{gate.url}/v1/chat/completions", json=HELLO) as response:
            assert response.status == 401
        found = await entries(gate, 4, "deny")
        assert [each.outcome for each in found] == [*["invalid_api_key"] * 3, "missing_api_key"]
        assert {each.source for each in found} == {"127.0.0.1"}
        assert secret.encode() not in b"".join(gate_bytes(gate))


async def test_what_was_counted_is_told_when_the_gateway_stops(start_gate: StartGate) -> None:
    async with start_gate(settings(audit={"repeats_per_minute": 1})) as gate:
        database_url = str(gate.database._engine.url)
        for _ in range(5):
            await gate.get("/v1/models", key="nonsense")
    database = Database.open(database_url)
    with database.read() as connection:
        last = [decode_entry(link.entry) for link in links(connection)][-3:]
    database.close()
    assert {(each.kind, each.action, each.count) for each in last} == {
        ("deny", "GET /v1/models", 1),
        ("administration", "gateway.stop", 1),
        ("suppressed", "deny", 4),
    }


async def test_a_limit_is_an_entry(start_gate: StartGate) -> None:
    async with start_gate(settings(limits={"rate_per_s": 0.001, "burst": 1})) as gate:
        assert (await gate.post("/v1/chat/completions", HELLO)).status == 200
        assert (await gate.post("/v1/chat/completions", HELLO)).status == 429
        assert (await gate.get("/v1/models")).status == 429
        found = await entries(gate, 2, "limit")
        assert [(each.action, each.outcome) for each in found] == [
            ("chat", "rate_limit_exceeded"),
            ("GET /v1/models", "rate_limit_exceeded"),
        ]
        assert {each.key_id for each in found} == {gate.key.split("-")[1]}


async def test_what_an_endpoint_refuses_was_let_in(start_gate: StartGate) -> None:
    async with start_gate(settings()) as gate:
        assert (await gate.post("/v1/chat/completions", {**HELLO, "model": "nobody"})).status == 404
        (found,) = await entries(gate, 1, "allow")
        assert (found.model, found.outcome) == ("nobody", "model_not_found")


async def test_a_spent_budget_is_an_entry(start_gate: StartGate) -> None:
    budgets = [{"kind": "key", "subject": "*", "period": "day", "tokens": 1}]
    async with start_gate(settings(budgets=budgets)) as gate:
        assert (await gate.post("/v1/chat/completions", HELLO)).status == 429
        (found,) = await entries(gate, 1, "budget")
        assert (found.action, found.outcome, found.model) == ("chat", "budget_exceeded", "echo")


async def test_what_a_guardrail_finds_is_an_entry_without_the_words(start_gate: StartGate) -> None:
    rules = [
        {"name": "mail", "check": "personal_data", "on": "input", "action": "redact"},
        {"name": "keys", "check": "secrets", "on": "input", "action": "block"},
    ]
    async with start_gate(settings(guardrails=rules)) as gate:
        for text, status in (("write to ann@example.com", 200), (f"my key is {gate.key}", 400)):
            body = {"model": "echo", "messages": [{"role": "user", "content": text}]}
            assert (await gate.post("/v1/chat/completions", body)).status == status
        found = await entries(gate, 3, "guardrail")
        assert [(each.action, each.outcome) for each in found] == [
            ("input", "redact"),
            ("input", "block"),
            ("chat", "content_blocked"),
        ]
        assert found[0].detail.startswith("mail (personal_data): ")
        assert b"example.com" not in b"".join(gate_bytes(gate))


async def test_denials_alone_leave_out_what_is_allowed(start_gate: StartGate) -> None:
    async with start_gate(settings(audit={"level": "denials", "flush_interval_s": 0.01})) as gate:
        await gate.post("/v1/chat/completions", HELLO)
        await gate.get("/v1/models")
        await gate.get("/v1/models", key="nonsense")
        await entries(gate, 1, "deny")
        assert [each for each in stored(gate) if each.kind == "allow"] == []


async def test_administration_is_an_entry(start_gate: StartGate) -> None:
    async with start_gate(settings()) as gate:
        made, _ = KeyStore(gate.database).create("laptop")
        KeyStore(gate.database).revoke(made.key_id)
        KeyStore(gate.database).revoke(made.key_id)
        await gate.post("/v1/conversations", {"id": "files"})
        await gate.http.delete(f"{gate.url}/v1/conversations/files", headers=gate.headers())
        found = await entries(gate, 5, "administration")
        told = {each.action: each for each in found}
        assert told["key.create"].detail == f"{made.key_id} (laptop)"
        assert told["key.revoke"].actor.startswith("user:")
        assert told["conversation.delete"].detail == "files"
        assert told["conversation.delete"].key_id == gate.key.split("-")[1]
        assert sorted(each.action for each in found) == [
            "conversation.delete",
            "gateway.start",
            "key.create",
            "key.create",
            "key.revoke",
        ]


async def test_a_full_log_delays_requests_and_does_not_fail_them(start_gate: StartGate) -> None:
    small = {"queue_size": 1, "block_s": 0.01, "flush_interval_s": 60}
    async with start_gate(settings(audit=small)) as gate:
        for _ in range(3):
            assert (await gate.post("/v1/chat/completions", HELLO)).status == 200
        metrics = await (await gate.get("/metrics")).text()
        assert "parkway_audit_lost_total 3.0" in metrics or "parkway_audit_lost_total 4.0" in metrics


async def raw(gate: Gate, *sent: bytes) -> bytes:
    """What the gateway answers to these very bytes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(gate.url.rpartition(":")[2]))
    for each in sent:
        writer.write(each)
    answer = await reader.read()
    writer.close()
    return answer


async def test_who_is_refused_at_the_door_is_noted_with_the_address_and_counted(start_gate: StartGate) -> None:
    quick = {"flush_interval_s": 0.01, "repeats_per_minute": 2}
    async with start_gate(settings(audit=quick, gateway={"head_timeout_s": 0.1})) as gate:
        for _ in range(5):
            assert b"400" in await raw(gate, b"no HTTP at all\r\n\r\n")
        assert b"431" in await raw(gate, b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 200 + b"\r\n")
        assert b"408" in await raw(gate, b"GET / HT")
        found = await entries(gate, 4, "deny")
        assert [each.outcome for each in found] == [
            "malformed_http",
            "malformed_http",
            "headers_too_large",
            "request_timeout",
        ]
        assert {(each.action, each.source) for each in found} == {("connection", "127.0.0.1")}
        assert all(each.request_id for each in found)
        gate.readiness.draining = True
        assert (await gate.post("/v1/chat/completions", HELLO)).status == 503
        (found_,) = await entries(gate, 1, "limit")
        assert (found_.action, found_.outcome) == ("POST /v1/chat/completions", "draining")
        assert found_.source == "127.0.0.1"
    suppressed = [each for each in stored(gate) if each.kind == "suppressed"]
    assert [(each.outcome, each.count) for each in suppressed] == [("malformed_http", 3)]


async def test_too_many_requests_and_connections_are_noted(start_gate: StartGate) -> None:
    limits = {"max_requests": 1, "max_connections": 2}
    async with start_gate(settings(gateway=limits)) as gate:
        began, go_on = asyncio.Event(), asyncio.Event()

        async def waits(request: web.Request) -> web.StreamResponse:
            began.set()
            await go_on.wait()
            return await gate.upstream.echo(request)

        gate.upstream.script = waits
        running = asyncio.ensure_future(gate.post("/v1/chat/completions", HELLO))
        await began.wait()
        assert (await gate.post("/v1/chat/completions", HELLO)).status == 503
        assert b"503" in await raw(gate)
        go_on.set()
        assert (await running).status == 200
        found = await entries(gate, 2, "limit")
        assert [(each.action, each.outcome) for each in found] == [
            ("POST /v1/chat/completions", "overloaded"), ("connection", "overloaded"),
        ]  # fmt: skip
