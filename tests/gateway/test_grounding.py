"""Chats that are answered from documents, through a gateway: searched by a script, told by a scripted model."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Collection
from typing import Any

import openai
import pytest
from aiohttp import web

from parkway.core.errors import CollectionNotFound
from parkway.core.knowledge import Found, Hit, Scores, Search
from parkway.launch.settings import Settings
from tests.gateway.conftest import Gate, StartGate
from tests.gateway.upstream import chunk

UNKNOWN = "I do not know: the documents do not say."
QUESTION = "How many requests may a key send a second?"
LIMITS = "Each key may send 100 requests a second. Bursts of up to 1,000 requests are allowed."
FILE = "The file parkway.yaml sets what keys are allowed."
GOOD = "A key may send 100 requests a second [1]."


def hit(text: str, number: int = 1, **more: Any) -> Hit:
    given: dict[str, Any] = {
        "passage_id": f"p{number}",
        "document_id": f"d{number}",
        "collection": "docs",
        "text": text,
        "start": 1000,
        "end": 1000 + len(text),
        "scores": Scores(rank=1 / number),
        "title": f"Limits {number}",
        "uri": f"guide/limits {number}.md",
    }
    return Hit(**{**given, **more})


class Library:
    """Two collections that a test fills; it remembers what it was asked."""

    def __init__(self) -> None:
        self.found: dict[str, Found] = {
            "docs": Found(hits=[hit(LIMITS), hit(FILE, 2)], confidence=0.9, took_ms={"embed": 1.0, "total": 3.0}),
            "empty": Found(hits=[]),
        }
        self.asked: list[tuple[str, Search, frozenset[str]]] = []
        self.gone: set[str] = set()
        self.error: Exception | None = None
        self.ready = asyncio.Event()
        self.ready.set()

    def has(self, collection: str) -> bool:
        return collection in self.found

    async def search(self, collection: str, search: Search, principals: Collection[str]) -> Found:
        self.asked.append((collection, search, frozenset(principals)))
        await self.ready.wait()
        if self.error is not None:
            raise self.error
        if collection in self.gone:
            raise CollectionNotFound("gone")
        return self.found[collection]


@pytest.fixture
def library() -> Library:
    return Library()


@pytest.fixture
async def gate(start_gate: StartGate, library: Library) -> AsyncIterator[Gate]:
    async with start_gate(Settings.model_validate({"models": {}}), knowledge=library) as gate:
        yield gate


def ask(**more: Any) -> dict[str, Any]:
    return {"model": "echo", "messages": [{"role": "user", "content": QUESTION}], "knowledge": ["docs"], **more}


def says(gate: Gate, text: str, **message: Any) -> None:
    """Has the model say `text`, whole or in pieces of three characters, and whatever else is in its message."""

    async def script(request: web.Request) -> web.StreamResponse:
        if not gate.upstream.bodies[-1].get("stream"):
            said = {"role": "assistant", "content": text, **message}
            choice = {"index": 0, "message": said, "finish_reason": "tool_calls" if message else "stop"}
            usage = {"prompt_tokens": 50, "completion_tokens": 9, "total_tokens": 59}
            return web.json_response(
                {"id": "chatcmpl-up", "object": "chat.completion", "created": 1, "model": "echo", "choices": [choice]}
                | {"usage": usage}
            )
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for at in range(0, len(text), 3):
            await response.write(chunk(text[at : at + 3]))
        if message:
            event = json.loads(chunk("").removeprefix(b"data: "))
            event["choices"][0]["delta"] = message
            await response.write(b"data: " + json.dumps(event).encode() + b"\n\n")
        await response.write(chunk(finish="tool_calls" if message else "stop"))
        await response.write(chunk(usage=True))
        await response.write(b"data: [DONE]\n\n")
        return response

    gate.upstream.script = script


def client(gate: Gate) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(api_key=gate.key, base_url=f"{gate.url}/v1", max_retries=0)


async def streamed(gate: Gate, body: dict[str, Any]) -> tuple[str, list[dict[str, Any]], dict[str, Any], list[Any]]:
    """Text, annotations and `parkway` of a stream, and its pieces of text."""
    response = await gate.post("/v1/chat/completions", {**body, "stream": True})
    assert response.status == 200, await response.text()
    events = [json.loads(line[6:]) for line in (await response.text()).splitlines() if line.startswith("data: {")]
    assert (await response.text()).rstrip().endswith("data: [DONE]")
    pieces = [event["choices"][0]["delta"].get("content") for event in events if event["choices"]]
    annotations = [
        each for event in events if event["choices"] for each in event["choices"][0]["delta"].get("annotations", ())
    ]
    told = [event["parkway"] for event in events if "parkway" in event]
    return "".join(filter(None, pieces)), annotations, told[-1], list(filter(None, pieces))


async def test_an_answer_is_cited_in_openais_form(gate: Gate, library: Library) -> None:
    says(gate, f"{GOOD} Bursts of 1,000 requests are allowed. [1]")
    async with client(gate) as api:
        answer = await api.chat.completions.create(
            model="echo",
            messages=[{"role": "user", "content": QUESTION}],
            extra_body={"knowledge": ["docs"]},
        )
    message = answer.choices[0].message
    assert message.content == "A key may send 100 requests a second [1]. Bursts of 1,000 requests are allowed [1]."
    assert message.annotations is not None
    first, second = (each.url_citation for each in message.annotations)
    assert message.content[first.start_index : first.end_index] == "[1]" == message.content[-4:-1]
    assert second.end_index == len(message.content) - 1
    assert (first.title, first.url) == ("Limits 1", "/v1/knowledge/docs/documents/guide/limits%201.md")
    assert answer.model_extra is not None
    told = answer.model_extra["parkway"]
    assert (told["tier"], told["answered"], told["confidence"]) == ("generated", True, 0.9)
    cited = told["citations"][0]
    assert message.content[cited["answer_start"] : cited["answer_end"]] == "A key may send 100 requests a second"
    assert LIMITS[cited["start"] - 1000 : cited["end"] - 1000] == cited["quote"] == LIMITS.split(" Bursts")[0]
    (asked,) = library.asked
    assert asked == ("docs", Search(query=QUESTION, limit=20), frozenset({"key:test"}))


async def test_a_stream_ends_with_what_it_rests_on(gate: Gate) -> None:
    says(gate, f"{GOOD} Bursts of 1,000 requests are allowed [1].")
    async with client(gate) as api:
        stream = await api.chat.completions.create(
            model="echo",
            messages=[{"role": "user", "content": QUESTION}],
            stream=True,
            extra_body={"knowledge": ["docs"]},
        )
        chunks = [each async for each in stream]
    text = "".join(each.choices[0].delta.content or "" for each in chunks)
    assert text == f"{GOOD} Bursts of 1,000 requests are allowed [1]."
    ended = [each for each in chunks if each.model_extra and "parkway" in each.model_extra]
    delta = ended[0].choices[0].delta.model_extra
    assert delta is not None
    assert [each["url_citation"]["start_index"] for each in delta["annotations"]] == [37, 79]
    assert chunks.index(ended[0]) == len(chunks) - 2
    assert chunks[-1].choices[0].finish_reason == "stop"
