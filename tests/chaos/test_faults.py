"""Every fault, through the real gateway: what the client sees, and what is left behind."""

from __future__ import annotations

import asyncio
import json
import ssl
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

import pytest

from parkway.router.candidate import Candidate
from parkway.router.condition import Condition
from parkway.router.endpoint import Endpoint
from parkway.router.router import Router
from parkway.router.view import View
from tests.chaos.conftest import FAILURES
from tests.chaos.faults import (
    DONE,
    STREAM_HEAD,
    Connection,
    Fault,
    FaultyUpstream,
    drip,
    endless,
    enormous_line,
    error_event,
    events,
    faulty,
    piece,
    raw,
    reset,
    response,
    say_nothing,
    slowly,
    status,
    well,
    whole,
)
from tests.gateway.conftest import Gate
from tests.router.conftest import until
from tests.router.upstreams import refused_url

pytestmark = pytest.mark.asyncio(loop_scope="module")

OK = (200, "ok")
FAILED = (502, "endpoint_failed")
BROKEN_UNSEEN = (502, "stream_interrupted")
BROKEN = (200, "stream_interrupted")
LATE = (504, "deadline_exceeded")


@dataclass(frozen=True, kw_only=True)
class Case:
    """A fault, and what follows from it.

    Args:
        streamed, asked_whole: Status, and code of the error that a client of the one endpoint sees; `ok` for an answer.
        helped: Whether another endpoint answers in its place, streamed and whole.
        opens: Whether repeating it opens the breaker.
        timeout_s: The client's own.
        url: The endpoint's address, if it is not the faulty server's.
    """

    name: str
    fault: Fault = well
    streamed: tuple[int, str]
    asked_whole: tuple[int, str]
    helped: tuple[bool, bool] = (True, True)
    opens: bool = True
    timeout_s: float = 10.0
    url: Callable[[FaultyUpstream], str] = lambda served: served.url
    tls: bool = False
    seen: int = 1
    """How often the endpoint gets a request that nobody else can answer."""
    most: int = 0
    """The same at most: a connection kept from a health check that closes at once is taken for an idle one."""


def failing(name: str, fault: Fault, **changes: object) -> Case:
    """A fault before anything of an answer: another endpoint answers."""
    values: dict[str, object] = {"streamed": FAILED, "asked_whole": FAILED, **changes}
    return Case(name=name, fault=fault, **values)  # pyright: ignore[reportArgumentType]


def harmless(name: str, fault: Fault) -> Case:
    return Case(name=name, fault=fault, streamed=OK, asked_whole=OK, helped=(False, False), opens=False)


def within(name: str, fault: Fault, streamed: tuple[int, str] = BROKEN, **changes: object) -> Case:
    """A fault after content: nobody else may answer a stream; whoever asked for the whole has seen nothing yet."""
    values: dict[str, object] = {"asked_whole": FAILED, "helped": (False, True), **changes}
    return Case(name=name, fault=fault, streamed=streamed, **values)  # pyright: ignore[reportArgumentType]


LONG = raw(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 100000\r\n\r\n" + piece("half"))
FINISH = piece(finish="stop")

CASES = [
    failing("refuses", well, url=lambda _: refused_url(), seen=0),
    failing("no such host", well, url=lambda _: "http://no-such-host.invalid/v1", seen=0),
    failing("untrusted certificate", well, tls=True, seen=0),
    failing("no TLS at https", well, url=lambda served: served.url.replace("http:", "https:"), seen=0),
    failing("closes without an answer", raw(), most=2),
    failing("resets", reset, most=2),
    failing("accepts and says nothing", say_nothing, streamed=LATE, asked_whole=LATE, helped=(False, False),
            timeout_s=0.15),
    harmless("slow first byte", slowly(well, 0.05)),
    Case(name="slow drip", fault=drip, streamed=OK, asked_whole=FAILED, helped=(False, True)),
    failing("garbage instead of a status line", raw(b"SSH-2.0-OpenSSH_9.2\r\n")),
    failing("a header without a colon", raw(b"HTTP/1.1 200 OK\r\nnonsense\r\n\r\n")),
    failing("header bomb", raw(b"HTTP/1.1 200 OK\r\n", *(b"x-%d: %s\r\n" % (i, b"y" * 8000) for i in range(200)))),
    failing("one enormous header", raw(b"HTTP/1.1 200 OK\r\nx: " + b"y" * 500_000)),
    harmless("1xx before the answer", lambda connection: _informed(connection)),
    Case(name="HTTP/1.0", fault=lambda connection: _old(connection), streamed=OK, asked_whole=OK,
         helped=(False, False), opens=False),
    failing("500", status(500)),
    failing("502 of a proxy", raw(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 6\r\n\r\n<html>", then_cut=False)),
    failing("503", status(503)),
    failing("503 with Retry-After", status(503, b"retry-after: 7\r\n")),
    failing("503 overloaded", status(503, b"retry-after: 7\r\n", "overloaded"), streamed=(503, "overloaded"),
            asked_whole=(503, "overloaded"), opens=False),
    failing("429", status(429, error="rate_limit_exceeded"), streamed=(429, "rate_limit_exceeded"),
            asked_whole=(429, "rate_limit_exceeded"), opens=False),
    failing("error status whose body is cut", raw(b"HTTP/1.1 500 X\r\ncontent-length: 100\r\n\r\n{"),
            streamed=BROKEN_UNSEEN, asked_whole=BROKEN_UNSEEN),
    failing("compressed unasked", raw(response(200, b"\x1f\x8b", b"content-encoding: gzip\r\n")),
            helped=(False, False)),
    failing("redirect", raw(response(302, b"", b"location: http://127.0.0.1:1/\r\n"), then_cut=False),
            streamed=BROKEN_UNSEEN),
    failing("an empty answer", raw(response(200, b""), then_cut=False), streamed=BROKEN_UNSEEN),
    failing("invalid JSON", lambda connection: _invalid(connection)),
    failing("not UTF-8", lambda connection: _latin(connection)),
    failing("error inside a 200", lambda connection: _error_first(connection)),
    failing("overloaded inside a 200", lambda connection: _overloaded_first(connection),
            streamed=(503, "overloaded"), asked_whole=(503, "overloaded"), opens=False),
    failing("role, then an error", events(piece() + error_event())),
    within("error after content", events(piece("half "), error_event()), streamed=(200, "endpoint_failed")),
    within("cuts between events", events(piece("half "), end=False), asked_whole=BROKEN_UNSEEN),
    within("cuts in the middle of a chunk", raw(STREAM_HEAD + b"fff\r\n" + piece("half ")), asked_whole=BROKEN_UNSEEN),
    within("cuts in the middle of an event", events(piece("half "), b'data: {"id": "cut', end=False),
           asked_whole=BROKEN_UNSEEN),
    within("longer content length than content", LONG, asked_whole=BROKEN_UNSEEN),
    failing("shorter content length than content", lambda connection: _short(connection), streamed=BROKEN_UNSEEN),
    failing("broken chunk size", raw(STREAM_HEAD + b"zz\r\n" + piece("half "))),
    within("missing finish", events(piece("half "))),
    within("missing [DONE]", events(piece("fine"), FINISH), streamed=OK),
    within("duplicate finish", events(piece("fine"), FINISH, FINISH, DONE), streamed=OK),
    within("enormous line", enormous_line, streamed=(502, "endpoint_failed"), helped=(True, False), asked_whole=LATE,
           timeout_s=1.0),
    within("endless stream", endless, streamed=(200, "deadline_exceeded"), asked_whole=LATE, helped=(False, False),
           opens=False, timeout_s=0.2),
]  # fmt: skip


async def _informed(connection) -> None:
    await connection.send(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n")
    await well(connection)


async def _old(connection) -> None:
    """No length and no chunks: the end of the connection is the end of the answer."""
    body = piece("fine") + FINISH + DONE if connection.stream else whole()
    await connection.send(b"HTTP/1.0 200 OK\r\ncontent-type: text/plain\r\n\r\n" + body)
    connection.writer.close()


async def _invalid(connection) -> None:
    await (events(b"data: {nope\n\n") if connection.stream else raw(response(200, b"{nope"), then_cut=False))(
        connection
    )


async def _latin(connection) -> None:
    said = "café".encode("latin-1")
    body = b'{"choices": [{"index": 0, "delta": {"content": "%s"}, "message": {"content": "%s"}}]}' % (said, said)
    parts = events(b"data: " + body + b"\n\n") if connection.stream else raw(response(200, body), then_cut=False)
    await parts(connection)


async def _error_first(connection) -> None:
    said = error_event()
    await (events(said) if connection.stream else raw(response(200, said[6:]), then_cut=False))(connection)


async def _overloaded_first(connection) -> None:
    said = error_event("all slots are taken", code="overloaded")
    await (events(piece(), said) if connection.stream else raw(response(200, said[6:]), then_cut=False))(connection)


async def _short(connection) -> None:
    said = piece("fine") + FINISH + DONE if connection.stream else whole()
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 20\r\n\r\n"
    await connection.send(head + said)


@dataclass
class Stage:
    """A gateway with the models `alone` (the faulty endpoint) and `pair` (the same, much preferred, and a good one)."""

    gate: Gate
    router: Router
    bad: FaultyUpstream
    good: FaultyUpstream
    timeout_s: float

    async def ask(self, model: str, *, stream: bool) -> tuple[int, str]:
        """Status, and `ok` or the code of the error, of one request."""
        body = {"model": model, "messages": [{"role": "user", "content": "hello"}], "stream": stream}
        answer = await self.gate.post("/v1/chat/completions", body, **{"x-parkway-timeout-s": str(self.timeout_s)})
        text = await answer.text()
        if answer.content_type != "text/event-stream":
            told = json.loads(text).get("error")
            return answer.status, told["code"] if told else "ok"
        blocks = [block.removeprefix("data: ") for block in text.split("\n\n") if block]
        if blocks[-1] == "[DONE]":
            assert answer.status == 200
            assert not any('"error"' in block for block in blocks)
            return answer.status, "ok"
        error = json.loads(blocks[-1])["error"]
        return answer.status, error.get("code", "endpoint_failed")

    async def ask_first_the_bad_one(self, *, stream: bool) -> tuple[int, str]:
        """Asks the pair while the good one seems busy."""
        good = next(candidate for candidate in self.candidates("pair") if candidate.endpoint.endpoint_id == "good")
        bad = next(candidate for candidate in self.candidates("pair") if candidate is not good)
        bad.circuit.forget()
        good.take()
        try:
            return await self.ask("pair", stream=stream)
        finally:
            good.give_back()

    def candidates(self, model: str) -> list[Candidate]:
        return list(self.router._fleet.pool(model).everyone)

    @property
    def outstanding(self) -> int:
        return sum(candidate.outstanding for candidate in self.router._fleet.candidates())

    def let_time_pass(self, model: str) -> None:
        """As if what an endpoint waits for were over."""
        for candidate in self.candidates(model):
            candidate.circuit.until = 0.0
            candidate.on_change(candidate, None)


Enter = Callable[[Case], AbstractAsyncContextManager[Stage]]


@pytest.fixture
def stage(gateway: tuple[Gate, Router, View], self_signed: ssl.SSLContext) -> Enter:
    @asynccontextmanager
    async def enter(case: Case) -> AsyncIterator[Stage]:
        gate, router, view = gateway
        async with faulty(case.fault, tls=self_signed if case.tls else None) as bad, faulty(well) as good:
            url = case.url(bad)

            def endpoint(endpoint_id: str, model: str, url: str) -> Endpoint:
                return Endpoint(endpoint_id=endpoint_id, model=model, url=url, upstream_model="m")

            view.load(
                [endpoint("only", "alone", url), endpoint("bad", "pair", url), endpoint("good", "pair", good.url)]
            )
            yield Stage(gate, router, bad, good, case.timeout_s)
            view.load([])

    return enter


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "-"))
async def test_a_fault(case: Case, stage: Enter) -> None:
    async with stage(case) as at:
        # What a client sees where nobody else can answer; nothing is sent twice.
        for stream, expected in ((True, case.streamed), (False, case.asked_whole)):
            before = len(at.bad.requests)
            assert await at.ask("alone", stream=stream) == expected
            assert case.seen <= len(at.bad.requests) - before <= (case.most or case.seen)
        # Another endpoint answers, but not once the client has seen something.
        for stream, expected, helped in (
            (True, case.streamed, case.helped[0]),
            (False, case.asked_whole, case.helped[1]),
        ):
            before = len(at.good.requests)
            assert await at.ask_first_the_bad_one(stream=stream) == (OK if helped else expected)
            assert len(at.good.requests) - before == helped
        await until(lambda: at.outstanding == 0)
        await _check_breaker(at, case)


async def _check_breaker(at: Stage, case: Case) -> None:
    """It opens if the fault is the endpoint's, spares it then, and lets one request through to find out."""
    (only,) = at.candidates("alone")
    failed_streamed = case.streamed != OK
    for _ in range(FAILURES):
        if only.condition is not Condition.OPEN:
            await at.ask("alone", stream=failed_streamed)
    assert (only.condition is Condition.OPEN) is case.opens, only.condition
    if case.opens:
        before = len(at.bad.requests)
        assert await at.ask("alone", stream=True) == (503, "no_healthy_endpoint")
        assert len(at.bad.requests) == before
    assert await at.ask("pair", stream=False) == OK or not case.helped[1]
    await until(lambda: at.outstanding == 0)
    if case.opens and case.seen:
        at.bad.faults = [well]
        at.let_time_pass("alone")
        assert await at.ask("alone", stream=True) == OK
        assert only.condition is Condition.HEALTHY


async def test_connections_that_are_reset_on_reuse_cost_nothing(stage: Enter) -> None:
    """A server that closes each connection after one answer, just as the next request is sent on it."""
    used: weakref.WeakSet[asyncio.StreamWriter] = weakref.WeakSet()

    async def once(connection: Connection) -> None:
        await (reset if connection.writer in used else well)(connection)
        used.add(connection.writer)

    case = harmless("reset on reuse", once)
    async with stage(case) as at:
        for number in range(8):
            assert await at.ask("alone", stream=number % 2 == 0) == OK
        (only,) = at.candidates("alone")
        assert only.condition is not Condition.OPEN
        assert only.circuit.window.some == 0
        await until(lambda: at.outstanding == 0)


async def test_a_broken_upstream_does_not_stop_the_others(stage: Enter) -> None:
    """Many at once, over a faulty and a good endpoint: each gets an answer and every slot comes back."""
    async with stage(failing("resets", reset)) as at:
        answers = await asyncio.gather(*[at.ask("pair", stream=number % 2 == 0) for number in range(60)])
        assert set(answers) == {OK}
        assert len(at.bad.requests) < 60
        await until(lambda: at.outstanding == 0)
