"""An endpoint that answers at once, always the same: what a gateway costs is seen best where nothing else costs.

`python -m bench.peers.static_upstream PORT EVENTS ADDRESSES`: whole answers, or streams of EVENTS events, each written
by itself; on the first ADDRESSES addresses of the loopback, each a server of its own to whoever asks.
"""

from __future__ import annotations

import asyncio
import json
import sys

import uvloop

ANSWER = {
    "id": "chatcmpl-static",
    "object": "chat.completion",
    "created": 1,
    "model": "static",
    "choices": [
        {"index": 0, "message": {"role": "assistant", "content": "tar xf archive.tar.gz"}, "finish_reason": "stop"}
    ],
    "usage": {"prompt_tokens": 12, "completion_tokens": 8, "total_tokens": 20},
}

_BODY = json.dumps(ANSWER).encode()
_WHOLE = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(_BODY) + _BODY
_STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def chunk(number: int, *, last: bool = False) -> dict[str, object]:
    """One event of a stream."""
    delta = {} if last else {"content": f"word{number} "}
    choice = {"index": 0, "delta": delta, "finish_reason": "stop" if last else None}
    return {"id": "chatcmpl-static", "object": "chat.completion.chunk", "created": 1, "model": "static",
            "choices": [choice]}  # fmt: skip


def events(count: int) -> list[bytes]:
    """A whole stream, event by event."""
    parts = [chunk(number) for number in range(count)]
    data = [json.dumps(part).encode() for part in [*parts, chunk(count, last=True)]]
    return [b"data: " + each + b"\n\n" for each in [*data, b"[DONE]"]]


def addresses(count: int) -> list[str]:
    """The first `count` addresses of the loopback, from 127.0.0.1 on."""
    return [f"127.0.{number // 250}.{number % 250 + 1}" for number in range(count)]


class Upstream(asyncio.Protocol):
    """One connection."""

    def __init__(self, stream: list[bytes]) -> None:
        self._stream = [b"%x\r\n%s\r\n" % (len(event), event) for event in stream] + [b"0\r\n\r\n"]
        self._pending = b""
        self._next = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # pyright: ignore[reportAttributeAccessIssue] - of TCP

    def data_received(self, data: bytes) -> None:
        self._pending += data
        while True:
            head, found, rest = self._pending.partition(b"\r\n\r\n")
            if not found:
                return
            lowered = head.lower()
            length = 0
            if b"content-length: " in lowered:
                length = int(lowered.partition(b"content-length: ")[2].partition(b"\r\n")[0])
            if len(rest) < length:
                return
            body, self._pending = rest[:length], rest[length:]
            if b'"stream":true' in body.replace(b" ", b""):
                self._transport.write(_STREAM)
                self._next = 0
                self._go_on()
            else:
                self._transport.write(_WHOLE)

    def _go_on(self) -> None:
        """One event each time that the loop comes round: the others have their turn in between."""
        if self._transport.is_closing():
            return
        self._transport.write(self._stream[self._next])
        self._next += 1
        if self._next < len(self._stream):
            asyncio.get_running_loop().call_soon(self._go_on)


async def main() -> None:
    """Serves until it is ended."""
    port, count, hosts = (int(word) for word in sys.argv[1:])
    stream = events(count)
    server = await asyncio.get_running_loop().create_server(lambda: Upstream(stream), addresses(hosts), port)
    print("ready", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
