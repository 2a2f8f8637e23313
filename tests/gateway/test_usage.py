"""`/v1/usage` and `/v1/budgets`."""

from __future__ import annotations

import pytest

from parkway.launch.settings import Settings
from parkway.policy.keys import KeyStore
from tests.gateway.conftest import Gate, StartGate
from tests.gateway.test_chat import HELLO, until


async def test_a_caller_sees_its_own_usage_and_an_administrator_all(gate: Gate) -> None:
    _, mine = KeyStore(gate.database).create("mine", scopes=["model:*"])
    while (await gate.get("/v1/models", key=mine)).status == 401:
        pass
    await gate.post("/v1/chat/completions", HELLO, key=mine)
    await gate.post("/v1/chat/completions", HELLO, key=mine, **{"x-parkway-agent": "planner"})
    await gate.post("/v1/chat/completions", HELLO)
    await until(lambda: len(gate.logged()) == 3, "the requests are in the log")
    report = await (await gate.get("/v1/usage", key=mine)).json()
    assert report["total"]["requests"] == 2
    (row,) = report["data"]
    assert (row["group"], row["prompt_tokens"], row["completion_tokens"]) == ("echo", 10, 6)
    asked = "/v1/usage?group_by=agent&agent=planner&from=2020-01-01&to=4102444800"
    report = await (await gate.get(asked, key=mine)).json()
    assert [(row["group"], row["requests"]) for row in report["data"]] == [("planner", 1)]
    report = await (await gate.get("/v1/usage?group_by=key", key=mine)).json()
    assert [row["name"] for row in report["data"]] == ["mine"]
    assert (await (await gate.get("/v1/usage?to=2020-01-01", key=mine)).json())["data"] == []
    refused = await gate.get("/v1/usage?key=somebody", key=mine)
    assert (refused.status, (await refused.json())["error"]["code"]) == (403, "not_allowed")
    report = await (await gate.get("/v1/usage?group_by=key")).json()
    assert {row["name"] for row in report["data"]} == {"mine", "test"}


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
