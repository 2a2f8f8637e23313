"""What an endpoint gets: the client's bytes, changed only where they must be."""

from __future__ import annotations

import msgspec
import pytest

from parkway.core.chat import ChatRequest, Message
from parkway.core.wire import decode
from parkway.pipeline.exchange import Client, Exchange, Headers, Surface
from parkway.pipeline.routing import outgoing_body


class Nobody(Client):
    """A client that is never written to."""

    async def read(self, max_bytes: int) -> bytes:
        raise AssertionError

    async def start(self, status: int, headers: Headers) -> None:
        raise AssertionError

    async def send(self, data: bytes, *, more: bool) -> None:
        raise AssertionError

    @property
    def started(self) -> bool:
        return False

    @property
    def finished(self) -> bool:
        return False

    @property
    def left(self) -> bool:
        return False


def exchange(body: bytes, history: list[Message] | None = None) -> Exchange:
    made = Exchange(
        request_id="req_1", surface=Surface.CHAT, client=Nobody(), authorization=None, deadline=0, body=body
    )
    made.request = decode(body, ChatRequest)
    made.history = history or []
    return made


@pytest.mark.parametrize(
    "body",
    [
        b'{"model": "m",  "messages":[{"role":"user","content":"x"}], "odd": [1.50, 1e3]}',
        b'{"model":"m","messages":[{"role":"user","content":"x"}],"stream":true,"stream_options":{"include_usage":true}}',
    ],
)
def test_what_needs_no_change_is_relayed_byte_for_byte(body: bytes) -> None:
    assert outgoing_body(exchange(body)) is body


def test_a_stream_is_asked_for_its_usage() -> None:
    body = b'{"model":"m","messages":[{"role":"user","content":"x"}],"stream":true,"odd":1.50}'
    sent = outgoing_body(exchange(body))
    assert b'"odd":1.50' in sent
    assert msgspec.json.decode(sent)["stream_options"] == {"include_usage": True}


def test_history_goes_in_and_our_own_fields_stay_out() -> None:
    body = b'{"model":"m","messages":[{"role":"user","content":"x"}],"conversation":"c","knowledge":[]}'
    sent = msgspec.json.decode(outgoing_body(exchange(body, [Message(role="user", content="before")])))
    assert sent == {
        "model": "m",
        "messages": [{"role": "user", "content": "before"}, {"role": "user", "content": "x"}],
    }
