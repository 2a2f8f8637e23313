"""Conversations over HTTP: created, continued, listed, shown, deleted; each key has its own."""

from __future__ import annotations

import asyncio

from aiohttp import web

from tests.gateway.conftest import Gate


async def say(gate: Gate, text: str, **fields: object) -> str:
    body = {"model": "echo", "messages": [{"role": "user", "content": text}], **fields}
    response = await gate.post("/v1/chat/completions", body)
    assert response.status == 200, await response.text()
    return str((await response.json())["choices"][0]["message"]["content"])


def sent(gate: Gate) -> list[tuple[str, str]]:
    """The messages of the last request to the endpoint."""
    messages = gate.upstream.bodies[-1]["messages"]
    assert isinstance(messages, list)
    return [(message["role"], message["content"]) for message in messages]


async def test_the_server_keeps_the_history(gate: Gate) -> None:
    await say(gate, "first", conversation="trip")
    await say(gate, "second", conversation="trip")
    assert sent(gate) == [("user", "first"), ("assistant", "first"), ("user", "second")]
    assert "conversation" not in gate.upstream.bodies[-1]


async def test_a_streamed_answer_is_kept_too(gate: Gate) -> None:
    body = {"model": "echo", "messages": [{"role": "user", "content": "a b"}], "stream": True, "conversation": "s"}
    await gate.post("/v1/chat/completions", body)
    shown = await (await gate.get("/v1/conversations/s")).json()
    assert [message["content"] for message in shown["messages"]] == ["a b", "a b "]


async def test_instructions_stand_first_and_new_ones_replace_the_old(gate: Gate) -> None:
    for system, text in (("be brief", "one"), ("be long", "two")):
        messages = [{"role": "system", "content": system}, {"role": "user", "content": text}]
        await gate.post("/v1/chat/completions", {"model": "echo", "messages": messages, "conversation": "c"})
    assert sent(gate) == [("system", "be long"), ("user", "one"), ("assistant", "one"), ("user", "two")]
    await say(gate, "three", conversation="c")
    assert sent(gate)[0] == ("system", "be long")
    assert [role for role, _ in sent(gate)].count("system") == 1


async def test_create_list_show_delete(gate: Gate) -> None:
    created = await gate.post("/v1/conversations", {"title": "plans"})
    assert created.status == 201
    conversation = (await created.json())["id"]
    await say(gate, "hello", conversation=conversation)
    listed = await (await gate.get("/v1/conversations")).json()
    assert [(one["id"], one["title"], one["message_count"]) for one in listed["data"]] == [(conversation, "plans", 2)]
    shown = await (await gate.get(f"/v1/conversations/{conversation}")).json()
    assert [message["role"] for message in shown["messages"]] == ["user", "assistant"]
    async with gate.http.delete(f"{gate.url}/v1/conversations/{conversation}", headers=gate.headers()) as deleted:
        assert await deleted.json() == {"id": conversation, "deleted": True}
    assert (await gate.get(f"/v1/conversations/{conversation}")).status == 404


async def test_another_keys_conversation_is_not_there(gate: Gate) -> None:
    await say(gate, "secret", conversation="mine")
    other = gate.new_key("other")
    for _ in range(100):  # the gateway sees the new key within a watch's interval
        if (await gate.get("/v1/models", key=other)).status == 200:
            break
        await asyncio.sleep(0.02)
    assert (await gate.get("/v1/conversations/mine", key=other)).status == 404
    assert (await (await gate.get("/v1/conversations", key=other)).json())["data"] == []
    body = {"model": "echo", "messages": [{"role": "user", "content": "mine?"}], "conversation": "mine"}
    await gate.post("/v1/chat/completions", body, key=other)
    assert sent(gate) == [("user", "mine?")]


async def test_a_failed_answer_is_not_remembered(gate: Gate) -> None:
    async def fails(_: web.Request) -> web.StreamResponse:
        return web.json_response({"error": {"message": "boom"}}, status=500)

    gate.upstream.script = fails
    body = {"model": "echo", "messages": [{"role": "user", "content": "x"}], "conversation": "c"}
    assert (await gate.post("/v1/chat/completions", body)).status == 502
    assert (await gate.get("/v1/conversations/c")).status == 404


async def test_a_history_too_long_for_the_model_loses_its_oldest_turns(gate: Gate) -> None:
    async def small(request: web.Request) -> web.StreamResponse:
        messages = gate.upstream.bodies[-1]["messages"]
        assert isinstance(messages, list)
        if len(messages) > 4:
            error = {"message": "too long", "type": "invalid_request_error", "code": "context_length_exceeded"}
            return web.json_response({"error": error}, status=400)
        return await gate.upstream.echo(request)

    gate.upstream.script = small
    for number in range(8):
        await say(gate, f"turn {number}", conversation="long")
    assert sent(gate)[-1] == ("user", "turn 7")
    assert sent(gate)[0][0] == "user"
    assert 1 < len(sent(gate)) <= 4
