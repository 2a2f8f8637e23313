"""Answers from documents that are more than one text: several, calls of tools, a form of their own."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from parkway.core.knowledge import Found
from parkway.launch.settings import Settings
from tests.gateway.conftest import Gate, StartGate
from tests.gateway.library import GOOD, LIMITS, QUESTION, UNKNOWN, Library, ask, endpoint_of, hit, known, says
from tests.gateway.upstream import chunk

BAD = "Keys never expire [1]."
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
FORM = {"type": "json_object"}


def call(name: str, index: int = 0) -> dict[str, Any]:
    return {"index": index, "id": f"c{index}", "type": "function", "function": {"name": name, "arguments": "{}"}}


@pytest.fixture
def library() -> Library:
    return Library()


@pytest.fixture
async def gate(start_gate: StartGate, library: Library) -> AsyncIterator[Gate]:
    async with start_gate(Settings.model_validate({"models": {}}), knowledge=library) as gate:
        yield gate


async def said(gate: Gate, **more: Any) -> dict[str, Any]:
    response = await gate.post("/v1/chat/completions", ask(**more))
    assert response.status == 200, await response.text()
    return await response.json()


async def told(gate: Gate, **more: Any) -> dict[str, Any]:
    """The same of a stream, put together."""
    response = await gate.post("/v1/chat/completions", ask(stream=True, **more))
    assert response.status == 200, await response.text()
    choices: dict[int, dict[str, Any]] = {}
    answer: dict[str, Any] = {}
    for line in (await response.text()).splitlines():
        if not line.startswith("data: {"):
            continue
        event = json.loads(line[6:])
        if "parkway" in event:
            assert "parkway" not in answer, "told once"
            answer["parkway"] = event["parkway"]
        for part in event["choices"]:
            empty: dict[str, Any] = {"message": {"content": "", "annotations": [], "tool_calls": []}}
            choice = choices.setdefault(part["index"], empty)
            delta = part["delta"]
            choice["message"]["content"] += delta.get("content") or ""
            choice["message"]["annotations"] += delta.get("annotations", [])
            choice["message"]["tool_calls"] += delta.get("tool_calls", [])
            choice["finish_reason"] = part["finish_reason"] or choice.get("finish_reason")
            if "parkway" in part:
                choice["parkway"] = part["parkway"]
    return {**answer, "choices": [choices[index] for index in sorted(choices)]}


ASKED = pytest.mark.parametrize("asked", [said, told], ids=["whole", "stream"])


def says_each(gate: Gate, *texts: str) -> None:
    """Has the model give several answers, streamed a word of each at a time."""

    async def script(request: web.Request) -> web.StreamResponse:
        if not gate.upstream.bodies[-1].get("stream"):
            choices = [
                {"index": at, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
                for at, text in enumerate(texts)
            ]
            return web.json_response({
                "id": "up", "object": "chat.completion", "created": 1, "model": "echo", "choices": choices,
                "usage": {"prompt_tokens": 5, "completion_tokens": 9, "total_tokens": 14},
            })  # fmt: skip
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        pieces = [(at, piece) for at, text in enumerate(texts) for piece in text.partition(" ")]
        for at, piece in sorted(pieces, key=lambda each: pieces.index(each) % 3):
            event = json.loads(chunk(piece).removeprefix(b"data: "))
            event["choices"][0]["index"] = at
            await response.write(b"data: " + json.dumps(event).encode() + b"\n\n")
        for at in range(len(texts)):
            event = json.loads(chunk(finish="stop").removeprefix(b"data: "))
            event["choices"][0]["index"] = at
            await response.write(b"data: " + json.dumps(event).encode() + b"\n\n")
        await response.write(chunk(usage=True))
        await response.write(b"data: [DONE]\n\n")
        return response

    gate.upstream.script = script


@ASKED
async def test_each_of_several_answers_is_checked(gate: Gate, asked: Any) -> None:
    says_each(gate, GOOD, f"{GOOD} {BAD}", BAD)
    answer = await asked(gate, n=3, grounding={"check": "drop"})
    assert [each["message"]["content"].strip() for each in answer["choices"]] == [GOOD, GOOD, UNKNOWN]
    assert [len(each["message"]["annotations"]) for each in answer["choices"]] == [1, 1, 0]
    assert [each["parkway"].get("dropped", 0) for each in answer["choices"]] == [0, 1, 1]
    assert [each["parkway"]["answered"] for each in answer["choices"]] == [True, True, False]
    assert answer["parkway"] == answer["choices"][0]["parkway"]


async def test_quoted_answers_are_as_many_as_were_asked_for(gate: Gate) -> None:
    gate.registry.put(endpoint_of(gate, "park-mini"))
    await known(gate, "park-mini")
    answer = await said(gate, model="park-mini", n=2)
    assert [each["index"] for each in answer["choices"]] == [0, 1]
    assert answer["choices"][0]["message"] == answer["choices"][1]["message"]


@ASKED
async def test_a_call_of_a_tool_passes_and_is_told_to_be_unchecked(gate: Gate, asked: Any) -> None:
    says(gate, "", tool_calls=[call("weather")])
    answer = await asked(gate, tools=[WEATHER], tool_choice="auto")
    (choice,) = answer["choices"]
    assert [each["function"]["name"] for each in choice["message"]["tool_calls"]] == ["weather"]
    assert choice["finish_reason"] == "tool_calls"
    assert not choice["message"]["content"]
    assert (answer["parkway"]["tier"], answer["parkway"]["answered"]) == ("unchecked", True)
    (sent,) = gate.upstream.bodies
    assert (sent["tools"], sent["tool_choice"]) == ([WEATHER], "auto")
    assert LIMITS in json.dumps(sent)


@ASKED
async def test_a_tool_that_nobody_offers_is_not_called(gate: Gate, asked: Any) -> None:
    says(gate, f"{GOOD} {BAD}", tool_calls=[call("delete_everything")], function_call={"name": "weather"})
    for tools in ([WEATHER], None):
        answer = await asked(gate, tools=tools, grounding={"check": "drop"})
        (choice,) = answer["choices"]
        assert choice["message"]["content"] == GOOD
        assert not choice["message"].get("tool_calls")
        assert "function_call" not in choice["message"]
        assert choice["finish_reason"] == "stop"
        assert (answer["parkway"]["tier"], answer["parkway"]["dropped"]) == ("generated", 1)


@ASKED
async def test_text_beside_tools_is_checked(gate: Gate, asked: Any) -> None:
    says(gate, f"{GOOD} {BAD}")
    answer = await asked(gate, tools=[WEATHER])
    assert answer["choices"][0]["message"]["content"] == f"{GOOD} Keys never expire. [unsupported]"
    assert answer["parkway"]["tier"] == "generated"


@ASKED
async def test_what_a_tool_has_said_cannot_be_checked_and_that_is_told(gate: Gate, asked: Any) -> None:
    says(gate, "It is 20 degrees.")
    calls = [{"id": "c0", "type": "function", "function": {"name": "weather", "arguments": "{}"}}]
    messages = [
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "tool", "tool_call_id": "c0", "content": "20 degrees"},
    ]
    answer = await asked(gate, messages=messages, tools=[WEATHER])
    assert answer["choices"][0]["message"]["content"] == "It is 20 degrees."
    assert answer["parkway"]["tier"] == "unchecked"


async def test_below_the_threshold_a_tool_may_help_and_words_do_not(gate: Gate, library: Library) -> None:
    library.found["docs"] = Found(hits=[hit(LIMITS)], confidence=0.1)
    says(gate, GOOD)
    answer = await said(gate, tools=[WEATHER])
    assert answer["choices"][0]["message"]["content"] == UNKNOWN
    assert answer["parkway"]["answered"] is False
    assert LIMITS not in json.dumps(gate.upstream.bodies)
    says(gate, "", tool_calls=[call("weather")])
    answer = await said(gate, tools=[WEATHER])
    assert answer["parkway"]["tier"] == "unchecked"


@ASKED
async def test_an_answer_with_a_form_passes_as_it_is(gate: Gate, asked: Any) -> None:
    text = '{"requests_per_s": 100, "image": "![x](https://example.org)"}'
    says(gate, text, tool_calls=[call("weather")])
    answer = await asked(gate, response_format=FORM)
    (choice,) = answer["choices"]
    assert choice["message"]["content"] == text
    assert not choice["message"].get("tool_calls")
    assert choice["message"]["annotations"] == []
    assert (answer["parkway"]["tier"], answer["parkway"]["citations"]) == ("unchecked", [])
    sent = json.dumps(gate.upstream.bodies[-1])
    assert LIMITS in sent
    assert "reply with exactly" not in sent


async def test_what_is_not_known_has_no_form(gate: Gate) -> None:
    response = await gate.post("/v1/chat/completions", ask(knowledge=["empty"], response_format=FORM))
    message = (await response.json())["choices"][0]["message"]
    assert (message["content"], message["refusal"]) == (None, UNKNOWN)
    assert response.headers["x-parkway-tier"] == "unchecked"


async def test_without_its_model_there_is_no_form(gate: Gate) -> None:
    async def broken(request: web.Request) -> web.StreamResponse:
        return web.json_response({"error": {"message": "no room", "type": "server_error"}}, status=500)

    gate.upstream.script = broken
    response = await gate.post("/v1/chat/completions", ask(response_format=FORM))
    assert response.status == 502


async def test_other_protocols_have_tools_and_forms_too(gate: Gate) -> None:
    says(gate, '{"requests_per_s": 100}')
    asked = {"model": "echo", "input": QUESTION, "knowledge": ["docs"], "text": {"format": {"type": "json_object"}}}
    response = await (await gate.post("/v1/responses", asked)).json()
    assert response["output"][0]["content"][0]["text"] == '{"requests_per_s": 100}'
    assert response["parkway"]["tier"] == "unchecked"
    says(gate, "", tool_calls=[call("weather")])
    tool = {"name": "weather", "input_schema": {"type": "object"}}
    messages = [{"role": "user", "content": QUESTION}]
    body = {"model": "echo", "max_tokens": 9, "messages": messages, "knowledge": ["docs"], "tools": [tool]}
    message = await (await gate.post("/v1/messages", body)).json()
    assert [(part["type"], part["name"]) for part in message["content"]] == [("tool_use", "weather")]
    assert (message["stop_reason"], message["parkway"]["tier"]) == ("tool_use", "unchecked")
