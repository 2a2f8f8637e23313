"""What only administrators see and do, over HTTP."""

from __future__ import annotations

import asyncio

from parkway.policy.keys import KeyStore
from tests.gateway.conftest import Gate

ASKED = {"model": "echo", "messages": [{"role": "user", "content": "one two"}]}


async def test_administrators_page_through_the_audit_log(gate: Gate) -> None:
    for _ in range(3):
        assert (await gate.post("/v1/chat/completions", ASKED)).status == 200
    assert (await gate.post("/v1/chat/completions", {**ASKED, "model": "none"})).status == 404
    seen: list[dict[str, object]] = []
    async with asyncio.timeout(10):
        while sum(entry.get("action") == "chat" for entry in seen) < 4:
            seen, after = [], -1
            while True:
                page = await (await gate.get(f"/v1/audit?limit=2&after={after}")).json()
                seen += page["data"]
                if not page["has_more"]:
                    break
                after = page["data"][-1]["sequence"]
            await asyncio.sleep(0.05)
    assert [entry["sequence"] for entry in seen] == sorted({entry["sequence"] for entry in seen})
    assert "one two" not in str(seen)
    newest = await (await gate.get("/v1/audit?since_ms=9000000000000")).json()
    assert newest == {"data": [], "has_more": False, "object": "list"}
    assert (await gate.get("/v1/audit?limit=0")).status == 400


async def test_nobody_else_does(gate: Gate) -> None:
    _, key = KeyStore(gate.database).create("ordinary", scopes=["model:*"])
    async with asyncio.timeout(10):
        # Until the gateway knows the key.
        while (answer := await gate.get("/v1/audit", key)).status == 401:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.05)
    assert answer.status == 403
    refused = await gate.http.delete(gate.url + "/v1/cache", headers=gate.headers(key))
    assert refused.status == 403
    assert (await gate.http.get(gate.url + "/v1/audit")).status == 401


async def test_the_cache_is_cleared_for_one_model_or_for_all(gate: Gate) -> None:
    for query, model in (("?model=echo", "echo"), ("", None)):
        answer = await gate.http.delete(f"{gate.url}/v1/cache{query}", headers=gate.headers())
        assert await answer.json() == {"model": model, "cleared": True}
    assert (await gate.http.delete(f"{gate.url}/v1/cache?model=", headers=gate.headers())).status == 400
