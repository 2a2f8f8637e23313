"""`/v1/usage` and `/v1/budgets`."""

from __future__ import annotations

import asyncio

import pytest

from parkway.launch.settings import Settings
from tests.gateway.conftest import Gate, StartGate
from tests.gateway.test_chat import HELLO, until


async def test_a_caller_sees_its_own_usage(gate: Gate) -> None:
    other = gate.new_key("other")
    await gate.post("/v1/chat/completions", HELLO)
    await gate.post("/v1/chat/completions", HELLO, **{"x-parkway-agent": "planner"})
    for _ in range(200):
        if (await gate.post("/v1/chat/completions", HELLO, key=other)).status == 200:
            break
        await asyncio.sleep(0.02)
    await until(lambda: len(gate.logged()) == 3, "the requests are in the log")
    report = await (await gate.get("/v1/usage")).json()
    assert report["total"]["requests"] == 2
    (row,) = report["data"]
    assert (row["group"], row["prompt_tokens"], row["completion_tokens"]) == ("echo", 10, 6)
    report = await (await gate.get("/v1/usage?group_by=agent&agent=planner&from=2020-01-01&to=4102444800")).json()
    assert [(row["group"], row["requests"]) for row in report["data"]] == [("planner", 1)]
    report = await (await gate.get("/v1/usage?group_by=key")).json()
    assert [row["name"] for row in report["data"]] == ["test"]
    assert (await (await gate.get("/v1/usage?to=2020-01-01")).json())["data"] == []
    refused = await gate.get("/v1/usage?key=somebody")
    assert (refused.status, (await refused.json())["error"]["code"]) == (403, "not_allowed")


@pytest.mark.parametrize(
    "query", ["group_by=colour", "from=yesterday", "to=99999999999999999999999", "from=-1", "to=", "team=%00"]
)
async def test_nonsense_is_told(gate: Gate, query: str) -> None:
    assert (await gate.get(f"/v1/usage?{query}")).status == 400


async def test_budgets_show_what_is_spent_reserved_and_left(start_gate: StartGate) -> None:
    budgets = [{"kind": "key", "period": "month", "tokens": 10_000}, {"kind": "model", "tokens": 1}]
    async with start_gate(Settings.model_validate({"models": {}, "budgets": budgets[:1]})) as gate:
        await gate.post("/v1/chat/completions", HELLO)
        (state,) = (await (await gate.get("/v1/budgets")).json())["data"]
        assert (state["limit"], state["spent"], state["reserved"], state["left"]) == (10_000, 8, 0, 9992)
        assert state["renews_ms"] > 0
    async with start_gate(Settings.model_validate({"models": {}})) as gate:
        assert (await (await gate.get("/v1/budgets")).json())["data"] == []
