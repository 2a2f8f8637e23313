"""What nobody sends by mistake: each attack is refused with an answer, costs little, and changes nothing for others."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import math
import time
from pathlib import Path

import pytest

from parkway.gateway.protocol import MAX_HEAD_BYTES
from parkway.launch.settings import Settings
from parkway.policy.caller import Caller
from parkway.policy.key_ring import KeyRing
from tests.gateway.conftest import Gate, StartGate

PATH = "/v1/chat/completions"
ASKED = {"model": "echo", "messages": [{"role": "user", "content": "one two"}]}


async def talk(gate: Gate, *parts: bytes, pause_s: float = 0.0, silence_s: float = 0.3) -> bytes:
    """Everything that the gateway says to raw bytes, until it closes or falls silent."""
    port = int(gate.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    said = b""
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(pause_s)
        while piece := await asyncio.wait_for(reader.read(65536), silence_s):
            said += piece
    except (TimeoutError, ConnectionError):
        pass
    finally:
        writer.close()
    return said


def request(gate: Gate, body: bytes, *headers: str, target: str = PATH, length: int | None = None) -> bytes:
    lines = [f"POST {target} HTTP/1.1", "host: x", f"authorization: Bearer {gate.key}", *headers]
    if length is not None:
        lines.append(f"content-length: {length}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def statuses(said: bytes) -> list[int]:
    return [int(part[:3]) for part in said.split(b"HTTP/1.1 ")[1:]]


async def alive(gate: Gate) -> None:
    """Everybody else is served as before."""
    assert (await gate.post(PATH, ASKED)).status == 200


SMUGGLED = b"0\r\n\r\nGET /metrics HTTP/1.1\r\nhost: x\r\n\r\n"


@pytest.mark.parametrize(
    "headers",
    [
        ("content-length: 6", "transfer-encoding: chunked"),
        ("transfer-encoding: chunked", "content-length: 6"),
        ("content-length: 6", "content-length: 7"),
        ("content-length: +6",),
        ("content-length: 0x6",),
        ("content-length: 6, 6",),
        ("content-length: -1",),
        ("transfer-encoding : chunked",),
        ("transfer-encoding: xchunked",),
        ("transfer-encoding: chunked, identity",),
        ("transfer-encoding:\x0bchunked",),
        (" transfer-encoding: chunked",),
        ("x: y\nevil: header",),
        ("x: a\x00b",),
    ],
)
async def test_a_request_that_can_be_read_in_two_ways_is_refused(gate: Gate, headers: tuple[str, ...]) -> None:
    said = await talk(gate, request(gate, SMUGGLED, *headers))
    found = statuses(said)
    assert found[:1] in ([400], []), said[:300]
    assert 200 not in found, "the second request was hidden in the first"
    await alive(gate)
    assert len(gate.upstream.bodies) == 1, "only what was asked in the open reached the endpoint"


@pytest.mark.parametrize(
    "raw",
    [
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET\r\n\r\n",
        b"G\x00T / HTTP/1.1\r\n\r\n",
    ],
)
async def test_what_is_not_http_gets_an_error_object_and_the_door(gate: Gate, raw: bytes) -> None:
    said = await talk(gate, raw)
    head, _, body = said.partition(b"\r\n\r\n")
    assert statuses(said) == [400]
    assert b"connection: close" in head
    assert json.loads(body)["error"]["code"] == "malformed_http"
    await alive(gate)


async def test_headers_without_end_are_cut(gate: Gate) -> None:
    said = await talk(gate, b"GET / HTTP/1.1\r\n", *[b"x: " + b"y" * 8000 + b"\r\n"] * 12)
    assert statuses(said) == [431]
    said = await talk(gate, b"GET / HTTP/1.1\r\nx: ", *[b"y" * 8000] * (MAX_HEAD_BYTES // 8000 + 2))
    assert statuses(said) == [431]
    said = await talk(gate, b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 500 + b"\r\n")
    assert statuses(said) == [431]
    said = await talk(gate, b"GET /" + b"y" * 2 * MAX_HEAD_BYTES)
    assert statuses(said) == [431]
    await alive(gate)


async def test_a_client_that_sends_its_headers_byte_by_byte_is_sent_away(start_gate: StartGate) -> None:
    settings = Settings.model_validate({"models": {}, "gateway": {"head_timeout_s": 0.3}})
    async with start_gate(settings) as gate:
        port = int(gate.url.rpartition(":")[2])
        many = [await asyncio.open_connection("127.0.0.1", port) for _ in range(50)]

        async def drip(writer: asyncio.StreamWriter) -> None:
            for byte in b"POST /v1/chat/completions HTTP/1.1\r\nx: " + b"y" * 1000:
                writer.write(bytes([byte]))
                await asyncio.sleep(0.02)

        dripping = [asyncio.ensure_future(drip(writer)) for _, writer in many]
        await alive(gate)
        async with asyncio.timeout(10):
            said = await asyncio.gather(*(reader.read() for reader, _ in many), return_exceptions=True)
        for task in dripping:
            task.cancel()
        await asyncio.gather(*dripping, return_exceptions=True)
        assert sum(isinstance(each, bytes) and statuses(each) == [408] for each in said) > 40
        await alive(gate)


async def test_a_connection_that_is_slow_after_an_answer_is_sent_away_too(start_gate: StartGate) -> None:
    settings = Settings.model_validate({"models": {}, "gateway": {"head_timeout_s": 0.1}})
    async with start_gate(settings) as gate:
        body = json.dumps(ASKED).encode()
        said = await talk(gate, request(gate, body, length=len(body)), b"POST /v1", pause_s=0.3)
        assert statuses(said) == [200, 408]


async def test_connections_have_a_limit(start_gate: StartGate) -> None:
    settings = Settings.model_validate({"models": {}, "gateway": {"max_connections": 5}})
    async with start_gate(settings) as gate:
        port = int(gate.url.rpartition(":")[2])
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(5)]
        await asyncio.sleep(0.05)
        said = await talk(gate, b"")
        assert statuses(said) == [503]
        assert b"retry-after" in said.lower()
        for _, writer in held:
            writer.close()
        await asyncio.sleep(0.05)
        await alive(gate)


async def test_a_body_that_never_comes_has_a_deadline(start_gate: StartGate) -> None:
    settings = Settings.model_validate({"models": {}, "gateway": {"body_timeout_s": 0.2}})
    async with start_gate(settings) as gate:
        said = await talk(gate, request(gate, b"{", length=100))
        assert statuses(said) == [504]
        await alive(gate)


async def test_requests_that_do_not_await_their_answers_are_bounded(gate: Gate) -> None:
    body = json.dumps(ASKED).encode()
    one = request(gate, body, length=len(body))
    assert statuses(await talk(gate, one * 3)) == [200] * 3
    found = statuses(await talk(gate, one * 500))
    assert len(found) < 50
    await alive(gate)


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "gzip, gzip"])
async def test_a_compressed_bomb_is_not_opened(gate: Gate, encoding: str) -> None:
    bomb = gzip.compress(b" " * 50_000_000)
    response = await gate.http.post(
        gate.url + PATH, data=bomb, headers={**gate.headers(), "content-encoding": encoding}
    )
    assert response.status == 400
    assert "send the body as plain JSON" in await response.text()


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 1_000_000,
        b'{"a":' * 500_000,
        b'{"model":"echo","messages":' + b"[" * 200_000 + b"]" * 200_000 + b"}",
        b'{"model":"echo","messages":[{"role":"user","content":[' + b'{"type":' * 100_000 + b"1",
        b'{"model":"echo","messages":[{"role":"user","content":"x"}],"metadata":' + b'{"a":' * 300_000 + b"1"
        + b"}" * 300_001,
        b"9" * 1_000_000,
        b'{"model":"echo","seed":' + b"9" * 100_000 + b"}",
        b'"' + b"\\ud800" * 100_000 + b'"',
    ],
)  # fmt: skip
async def test_a_body_that_is_deep_or_wide_without_sense_is_refused(gate: Gate, body: bytes) -> None:
    response = await gate.http.post(gate.url + PATH, data=body, headers=gate.headers())
    assert response.status in (400, 413), await response.text()
    error = (await response.json())["error"]
    assert error["code"] in ("malformed_json", "invalid_request", "body_too_large")
    assert len(error["message"]) < 1000
    await alive(gate)


HOSTILE_KEYS = [
    "pk-' OR '1'='1",
    "pk-aaaaaaaaaaaa-" + "x" * 43 + "' OR 1=1 --",
    "pk-aaaaaaaaaaaa'; DROP TABLE keys; ---" + "x" * 43,
    "pk-" + "a" * 100_000,
    "pk-%00%00",
    "pk-../../first.key",
    "pk-aaaaaaaaaaaa-" + "é" * 43,
    "Bearer pk-x",
    "null",
    "undefined",
    "{}",
]


@pytest.mark.parametrize("key", HOSTILE_KEYS)
async def test_a_hostile_key_is_just_a_wrong_one(gate: Gate, key: str) -> None:
    raw = f"POST {PATH} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n"
    raw += "connection: close\r\ncontent-length: 2\r\n\r\n{}"
    said = await talk(gate, raw.encode("latin-1"))
    assert statuses(said) in ([401], [431])
    if statuses(said) == [401]:
        assert json.loads(said.partition(b"\r\n\r\n")[2])["error"]["code"] == "invalid_api_key"
        assert key.encode("latin-1") not in said or len(key) < 10
    await alive(gate)


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1:1", "x'\"><script>", "", "a" * 10_000, "[::1", "x y"])
async def test_nothing_depends_on_the_host_header(gate: Gate, host: str) -> None:
    """No redirect, no link and no cache is made of it."""
    body = json.dumps(ASKED).encode()
    raw = request(gate, body, "connection: close", length=len(body)).replace(b"host: x", f"host: {host}".encode())
    said = await talk(gate, raw)
    assert statuses(said) == [200]
    assert not host or host.encode() not in said
    forwarded = gate.upstream.headers[-1]
    assert host not in ({name.lower(): value for name, value in forwarded.items()}["host"], None) or not host


@pytest.mark.parametrize(
    "name",
    [
        "x-forwarded-for",
        "x-forwarded-host",
        "x-real-ip",
        "x-request-id",
        "x-parkway-client",
        "forwarded",
        "x-api-version",
    ],
)
async def test_headers_that_a_proxy_would_set_are_not_believed_nor_handed_on(gate: Gate, name: str) -> None:
    response = await gate.post(PATH, ASKED, **{name: "spoofed-by-a-client"})
    assert response.status == 200
    assert "spoofed" not in str(gate.upstream.headers[-1])
    assert "spoofed" not in str(response.headers)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/models/../../metrics",
        "/v1/models/%2e%2e%2f%2e%2e%2fmetrics",
        "/v1/conversations/..%2f..%2fx",
        "/v1/conversations/%00",
        "/v1/conversations/" + "a" * 5000,
        "/v1/conversations/%ff%fe",
        "/v1/conversations/a%0d%0aset-cookie:x",
        "//v1/models",
        "/v1/models/..;/x",
        "/v1\\models",
    ],
)
async def test_a_path_leads_nowhere_but_to_its_route(gate: Gate, path: str) -> None:
    raw = f"GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {gate.key}\r\nconnection: close\r\n\r\n"
    said = await talk(gate, raw.encode())
    assert statuses(said)[0] in (400, 404), said[:300]
    assert b"set-cookie" not in said.partition(b"\r\n\r\n")[0].lower()


@pytest.mark.parametrize(
    "model", ["../../etc/passwd", "echo\n2026 ERROR root login", "echo\r\nx: y", "\x1b[31mred", "’; --"]
)
async def test_a_name_cannot_write_lines_of_its_own_into_the_log(
    gate: Gate, model: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        response = await gate.post(PATH, {**ASKED, "model": model})
    assert response.status == 404
    for record in caplog.records:
        if record.name.startswith("parkway"):
            assert "\n" not in record.getMessage()
            assert "\x1b" not in record.getMessage()
    async with asyncio.timeout(5):
        while not gate.logged():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.05)
    assert str(gate.logged()[-1]["model"]).isprintable()


def test_a_refusal_takes_as_long_for_a_known_key_as_for_an_unknown_one(tmp_path: Path) -> None:
    """Which keys exist must not be told by the clock. Compared are medians of many, in turn."""
    ring = KeyRing()
    ids = [f"{number:012d}" for number in range(1000)]
    ring.refresh({key_id: (Caller(key_id, "name"), b"\0" * 32, math.inf) for key_id in ids})
    known, unknown = (f"Bearer pk-{number:012d}-{'x' * 43}" for number in (7, 77777))
    took: dict[str, list[int]] = {known: [], unknown: []}
    for _ in range(4000):
        for header in (known, unknown):
            started = time.perf_counter_ns()
            with pytest.raises(Exception, match="unknown, wrong or revoked"):
                ring.identify(header)
            took[header].append(time.perf_counter_ns() - started)
    one, other = (sorted(each)[len(each) // 2] for each in took.values())
    assert 0.5 < one / other < 2, "a difference that a network could carry would be far larger"
