"""Documents that a test fills, a model that says what it is told, and requests that are answered from both."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Collection
from typing import Any

import openai
from aiohttp import web

from parkway.core.errors import CollectionNotFound
from parkway.core.knowledge import Found, Hit, Scores, Search
from parkway.router.endpoint import Endpoint
from tests.gateway.conftest import Gate
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
        self.ended = False
        self.error: Exception | None = None
        self.ready = asyncio.Event()
        self.ready.set()

    def has(self, collection: str) -> bool:
        return collection in self.found

    async def search(self, collection: str, search: Search, principals: Collection[str]) -> Found:
        self.asked.append((collection, search, frozenset(principals)))
        try:
            await self.ready.wait()
        except asyncio.CancelledError:
            self.ended = True
            raise
        if self.error is not None:
            raise self.error
        if collection in self.gone:
            raise CollectionNotFound("gone")
        return self.found[collection]


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


def endpoint_of(gate: Gate, model: str) -> Endpoint:
    return Endpoint(endpoint_id=f"{model}-0", model=model, url=gate.upstream_url, upstream_model=model)


async def until(check: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(10):
        while not await check():  # noqa: ASYNC110 - it follows the store
            await asyncio.sleep(0.02)


async def known(gate: Gate, model: str) -> None:
    async def there() -> bool:
        return model in await (await gate.get("/v1/models")).text()

    await until(there)


async def key_known(gate: Gate, key: str) -> None:
    async def there() -> bool:
        return (await gate.get("/v1/models", key=key)).status == 200

    await until(there)
