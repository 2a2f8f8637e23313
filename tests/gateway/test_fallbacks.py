"""Another model answers where the one that was asked for cannot."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

import pytest

from parkway.launch.settings import Settings
from parkway.router.endpoint import Endpoint
from tests.chaos.faults import Fault, FaultyUpstream, error_event, events, faulty, piece, raw, response, status, well
from tests.gateway.conftest import Gate, StartGate
from tests.gateway.test_chat import until
from tests.router.upstreams import refused_url

TOO_LONG = b'{"error": {"message": "too long", "type": "invalid_request_error", "code": "context_length_exceeded"}}'


@dataclass
class Chain:
    """A gateway with the models `large`, and `small` and `last` in its place."""

    gate: Gate
    large: FaultyUpstream
    small: FaultyUpstream
    last: FaultyUpstream

    async def ask(self, *, stream: bool = False) -> tuple[int, str, str | None]:
        """Status, `ok` or the code of the error, and who answered."""
        body = {"model": "large", "messages": [{"role": "user", "content": "hello"}], "stream": stream}
        answer = await self.gate.post("/v1/chat/completions", body)
        text, told = await answer.text(), "ok"
        if not stream or answer.status != 200:
            error = json.loads(text).get("error")
            told = error["code"] if error else "ok"
        else:
            assert text.endswith("data: [DONE]\n\n")
            assert text.count('"role"') == 1
        return answer.status, told, answer.headers.get("x-parkway-model")

    def asked(self) -> list[int]:
        return [len(up.requests) for up in (self.large, self.small, self.last)]


Enter = Callable[..., AbstractAsyncContextManager[Chain]]


@pytest.fixture
def chain(start_gate: StartGate) -> Enter:
    @asynccontextmanager
    async def enter(
        large: Fault, small: Fault = well, url: str | None = None, **router: object
    ) -> AsyncIterator[Chain]:
        async with faulty(large) as one, faulty(small) as two, faulty(well) as three:
            urls = {"large": url or one.url, "small": two.url, "last": three.url}
            models: dict[str, dict[str, object]] = {name: {"url": each} for name, each in urls.items()}
            models["large"]["fallbacks"] = ["small"]
            models["small"]["fallbacks"] = ["last"]
            settings = {"models": models, "router": {"retry_pause_s": 0.001, **router}}
            async with start_gate(Settings.model_validate(settings)) as gate:
                for name, each in urls.items():
                    gate.registry.put(Endpoint(endpoint_id=name, model=name, url=each, upstream_model=f"their-{name}"))
                while len((await (await gate.get("/v1/models")).json())["data"]) < 4:
                    pass
                yield Chain(gate, one, two, three)

    return enter


@pytest.mark.parametrize(
    "fault",
    [status(500), status(503, error="overloaded"), status(429, error="rate_limit_exceeded"),
     raw(response(200, b"{nope"), then_cut=False), raw()],
)  # fmt: skip
async def test_a_model_that_cannot_answer_is_replaced(chain: Enter, fault: Fault) -> None:
    async with chain(fault) as at:
        for stream in (False, True):
            assert await at.ask(stream=stream) == (200, "ok", "small")
        assert at.small.requests[0]["model"] == "their-small"
        assert at.asked()[2] == 0
        await until(lambda: len(at.gate.logged()) == 2, "both are in the log")
        for entry in at.gate.logged():
            assert (entry["model"], entry["endpoint_id"], entry["outcome"]) == ("small", "small", "ok")
            assert entry["attempts"] in (2, 3)
        figures = await (await at.gate.get("/metrics")).text()
        assert 'parkway_fallbacks_total{model="large"} 2.0' in figures
        assert 'parkway_endpoint_state{endpoint="small",model="small",state="healthy"} 1.0' in figures


async def test_the_first_model_answers_if_it_can(chain: Enter) -> None:
    async with chain(well) as at:
        assert await at.ask() == (200, "ok", "large")
        assert await at.ask(stream=True) == (200, "ok", "large")
        assert at.asked() == [2, 0, 0]


@pytest.mark.parametrize("opening", [(), (piece(),), (b": waiting\n\n", piece())])
@pytest.mark.parametrize("code", ["overloaded", "internal_error"])
async def test_an_error_inside_a_stream_before_its_content_is_not_the_end(
    chain: Enter, opening: tuple[bytes, ...], code: str
) -> None:
    async with chain(events(*opening, error_event(code=code))) as at:
        assert await at.ask(stream=True) == (200, "ok", "small")


async def test_after_content_nobody_else_is_asked(chain: Enter) -> None:
    async with chain(events(piece("half"), error_event())) as at:
        body = {"model": "large", "messages": [{"role": "user", "content": "hello"}], "stream": True}
        answer = await at.gate.post("/v1/chat/completions", body)
        assert answer.headers["x-parkway-model"] == "large"
        assert "out of memory" in await answer.text()
        assert at.asked() == [1, 0, 0]


async def test_the_chain_goes_on_to_the_models_behind(chain: Enter) -> None:
    async with chain(well, status(500), url=refused_url()) as at:
        assert await at.ask() == (200, "ok", "last")
        assert at.asked() == [0, 1, 1]


async def test_where_none_can_answer_the_first_says_why(chain: Enter) -> None:
    async with chain(status(503, b"retry-after: 3\r\n", "overloaded"), status(500)) as at:
        at.last.faults = [raw()]
        assert await at.ask() == (503, "overloaded", None)
        assert at.asked()[:2] == [1, 1]
        await until(at.gate.logged, "it is in the log")
        assert at.gate.logged()[0]["model"] == "large"


async def test_a_fault_of_the_request_stays_one(chain: Enter) -> None:
    async with chain(raw(response(400, TOO_LONG), then_cut=False)) as at:
        assert await at.ask() == (400, "context_length_exceeded", None)
        assert at.asked() == [1, 0, 0]


async def test_a_context_that_is_too_small_is_a_reason_where_that_is_set(chain: Enter) -> None:
    async with chain(raw(response(400, TOO_LONG), then_cut=False), fall_back_on_long_context=True) as at:
        assert await at.ask() == (200, "ok", "small")


async def test_a_fallback_that_nobody_serves_is_passed_over(chain: Enter) -> None:
    async with chain(status(500)) as at:
        at.gate.registry.remove("small")
        while len((await (await at.gate.get("/v1/models")).json())["data"]) > 3:
            pass
        assert await at.ask() == (200, "ok", "last")
