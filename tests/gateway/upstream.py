"""A scripted endpoint: answers in OpenAI's form, or fails in the way that a test asks for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def chunk(content: str | None = None, finish: str | None = None, *, usage: bool = False) -> bytes:
    """One event of a chat stream."""
    delta = {} if content is None else {"content": content}
    body: dict[str, object] = {
        "id": "chatcmpl-up",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "echo",
        "choices": [] if usage else [{"index": 0, "delta": delta, "finish_reason": finish}],
    }
    if usage:
        body["usage"] = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
    return b"data: " + json.dumps(body).encode() + b"\n\n"


class Upstream:
    """Listens on an ephemeral port. `bodies` has every request it was sent; `script` replaces how it answers."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, object]] = []
        self.raw = b""
        """The body of the last request, as it came."""
        self.headers: list[dict[str, str]] = []
        self.script: Handler = self.echo
        self.cut_off = asyncio.Event()
        """Set when the other side has gone before the answer was complete."""
        self._runner: web.ServerRunner | None = None

    async def start(self) -> str:
        """Begins to listen; returns the base URL."""
        self._runner = web.ServerRunner(web.Server(self._serve, handler_cancellation=True))
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        return f"http://{host}:{port}/v1"

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.method == "GET":
            return web.json_response({"data": []})
        self.raw = await request.read()
        self.bodies.append(json.loads(self.raw))
        self.headers.append(dict(request.headers))
        try:
            return await self.script(request)  # pyright: ignore[reportArgumentType]
        except (asyncio.CancelledError, ConnectionError):
            self.cut_off.set()
            raise

    async def echo(self, request: web.Request) -> web.StreamResponse:
        """Answers with the last message, word by word."""
        body = self.bodies[-1]
        if request.path.endswith("/embeddings"):
            data = [{"object": "embedding", "index": 0, "embedding": [0.5, 0.5]}]
            return web.json_response(
                {"object": "list", "data": data, "model": "echo", "usage": {"prompt_tokens": 2, "total_tokens": 2}}
            )
        messages = body.get("messages")
        text = str(messages[-1]["content"]) if isinstance(messages, list) else str(body.get("prompt"))
        if body.get("stream"):
            response = web.StreamResponse(headers={"content-type": "text/event-stream"})
            await response.prepare(request)
            options = body.get("stream_options")
            counted = isinstance(options, dict) and bool(options.get("include_usage"))
            for piece in (*(chunk(word + " ") for word in text.split(" ")), chunk(finish="stop")):
                # As OpenAI does: with the option every event has the field, and all but the last have null in it.
                await response.write(piece.replace(b"}]}", b'}], "usage": null}') if counted else piece)
            if counted:
                await response.write(chunk(usage=True))
            await response.write(b"data: [DONE]\n\n")
            return response
        choice: dict[str, object] = {"index": 0, "finish_reason": "stop", "logprobs": None}
        if isinstance(messages, list):
            choice["message"] = {"role": "assistant", "content": text}
        else:
            choice["text"] = text
        return web.json_response(
            {
                "id": "chatcmpl-up",
                "object": "chat.completion" if isinstance(messages, list) else "text_completion",
                "created": 1,
                "model": "echo",
                "choices": [choice],
                "usage": {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8},
            }
        )
