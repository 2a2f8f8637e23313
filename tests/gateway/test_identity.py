"""Who may come in and what they may use: keys with rights, tokens of an identity provider, permissions."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from sqlalchemy import select

from parkway.launch.settings import Settings
from parkway.policy.keys import KeyStore
from parkway.router.endpoint import Endpoint
from parkway.store import schema
from tests.gateway.conftest import Gate, StartGate
from tests.gateway.test_chat import HELLO, until
from tests.policy.idp import AUDIENCE, IdentityProvider
from tests.router.upstreams import refused_url


@pytest.fixture
async def idp() -> AsyncIterator[IdentityProvider]:
    provider = IdentityProvider()
    await provider.start()
    yield provider
    await provider.stop()


def trusting(idp: IdentityProvider, **changes: Any) -> Settings:
    issuer = {"issuer": idp.url, "audience": AUDIENCE, **changes}
    return Settings.model_validate({"models": {}, "identity": {"issuers": [issuer]}})


async def code_of(response: aiohttp.ClientResponse) -> tuple[int, str]:
    return response.status, (await response.json())["error"]["code"]


async def known(gate: Gate, key: str) -> None:
    """Waits until the gateway has heard of a new key."""
    while (await gate.get("/v1/models", key=key)).status == 401:
        pass


async def test_a_user_asks_with_a_token_and_is_in_the_log_with_the_team(
    start_gate: StartGate, idp: IdentityProvider
) -> None:
    async with start_gate(trusting(idp, team_claim="team")) as gate:
        answer = await gate.post("/v1/chat/completions", HELLO, key=idp.token(team="ml"))
        assert answer.status == 200, await answer.text()
        await until(lambda: len(gate.logged()) > 0, "the request is in the log")
        (entry,) = gate.logged()
        assert (entry["user"], entry["team"]) == ("ada", "ml")
        assert str(entry["key_id"]).startswith("user-")
        expired = await gate.post("/v1/chat/completions", HELLO, key=idp.token(exp=time.time() - 60))
        assert await code_of(expired) == (401, "expired_token")
        forged = await gate.post("/v1/chat/completions", HELLO, key=idp.raw({"alg": "none"}))
        assert await code_of(forged) == (401, "invalid_token")
        assert len(gate.upstream.bodies) == 1


async def test_an_identity_provider_that_is_away_is_not_the_clients_fault(
    start_gate: StartGate, idp: IdentityProvider
) -> None:
    idp.status = 500
    async with start_gate(trusting(idp)) as gate:
        answer = await gate.post("/v1/chat/completions", HELLO, key=idp.token())
        assert await code_of(answer) == (503, "identity_unavailable")
        assert int(answer.headers["retry-after"]) >= 1
        assert (await gate.post("/v1/chat/completions", HELLO)).status == 200  # keys go on


async def test_a_user_is_no_administrator_unless_a_scope_says_so(start_gate: StartGate, idp: IdentityProvider) -> None:
    async with start_gate(trusting(idp, scopes_claim="scope")) as gate:
        plain, admin = idp.token(scope="openid model:*"), idp.token(scope=["admin"])
        assert (await gate.post("/v1/chat/completions", HELLO, key=plain)).status == 200
        assert await code_of(await gate.get("/metrics", key=plain)) == (403, "not_allowed")
        assert (await gate.get("/metrics", key=admin)).status == 200
        assert await code_of(await gate.post("/v1/chat/completions", HELLO, key=admin)) == (403, "not_allowed")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", HELLO),
        ("/v1/chat/completions", {**HELLO, "stream": True}),
        ("/v1/completions", {"model": "echo", "prompt": "hello"}),
        ("/v1/embeddings", {"model": "echo", "input": "hello"}),
        ("/v1/responses", {"model": "echo", "input": "hello"}),
        ("/v1/messages", {**HELLO, "max_tokens": 5}),
        ("/v1/messages/count_tokens", HELLO),
        ("/v1/rerank", {"model": "echo", "query": "hello", "documents": ["hello"]}),
    ],
)
async def test_a_key_with_scopes_is_held_to_them_on_every_surface(gate: Gate, path: str, body: dict[str, Any]) -> None:
    _, other = KeyStore(gate.database).create("other", scopes=["model:another"])
    await known(gate, other)
    refused = await gate.post(path, body, key=other)
    assert refused.status == 403
    assert "may not use the model 'echo'" in (await refused.json())["error"]["message"]
    assert gate.upstream.bodies == []


async def test_refusals_count_as_requests(start_gate: StartGate) -> None:
    settings = Settings.model_validate({"models": {}, "limits": {"rate_per_s": 0.001, "burst": 5}})
    async with start_gate(settings) as gate:
        _, other = KeyStore(gate.database).create("other", scopes=["model:another"])
        while (refused := await gate.post("/v1/chat/completions", HELLO, key=other)).status == 401:
            pass
        statuses = [(await gate.post("/v1/chat/completions", HELLO, key=other)).status for _ in range(6)]
        assert [refused.status, *statuses] == [403] * 5 + [429] * 2


async def test_whether_a_model_exists_is_not_told_to_who_may_not_use_it(gate: Gate) -> None:
    gate.registry.put(Endpoint(endpoint_id="b", model="secret", url=gate.upstream_url, upstream_model="echo"))
    _, other = KeyStore(gate.database).create("other", scopes=["model:echo"])
    await known(gate, other)
    while len((await (await gate.get("/v1/models")).json())["data"]) < 2:
        pass
    listed = await (await gate.get("/v1/models", key=other)).json()
    assert [model["id"] for model in listed["data"]] == ["echo"]
    assert (await gate.get("/v1/models/echo", key=other)).status == 200
    for name in ("secret", "secre", "nothing"):
        shown = await gate.get(f"/v1/models/{name}", key=other)
        assert await code_of(shown) == (404, "model_not_found")
        assert "Did you mean" not in await shown.text()
        asked = await gate.post("/v1/chat/completions", {**HELLO, "model": name}, key=other)
        assert await code_of(asked) == (403, "not_allowed")


async def test_own_policies_decide(start_gate: StartGate, tmp_path: Path) -> None:
    file = tmp_path / "permissions.cedar"
    file.write_text('permit (principal in Team::"ml", action == Action::"use", resource == Model::"echo");')
    settings = Settings.model_validate({"models": {}, "permissions": {"file": str(file)}})
    async with start_gate(settings) as gate:
        _, member = KeyStore(gate.database).create("member", team="ml")
        await known(gate, member)
        assert (await gate.post("/v1/chat/completions", HELLO, key=member)).status == 200
        assert await code_of(await gate.post("/v1/chat/completions", HELLO)) == (403, "not_allowed")
        assert await code_of(await gate.get("/metrics")) == (403, "not_allowed")


async def test_a_key_comes_in_either_header_and_expires_by_itself(gate: Gate) -> None:
    _, key = KeyStore(gate.database).create("short", expires_s=1.5)
    await known(gate, key)

    async def ask(**headers: str) -> aiohttp.ClientResponse:
        response = await gate.http.post(f"{gate.url}/v1/chat/completions", json=HELLO, headers=headers)
        await response.read()
        return response

    assert (await ask(**{"x-api-key": gate.key})).status == 200
    assert (await ask(**{"x-api-key": gate.key, "authorization": f"Bearer {gate.key}"})).status == 200
    for headers in ({"authorization": f"Bearer {gate.key}"}, {"authorization": ""}):
        both = await ask(**{"x-api-key": key, **headers})
        assert await code_of(both) == (401, "invalid_api_key")
        assert "Two different credentials" in (await both.json())["error"]["message"]
    assert await code_of(await ask(**{"x-api-key": ""})) == (401, "invalid_api_key")
    async with gate.http.get(f"{gate.url}/v1/models", headers={"x-api-key": gate.key}) as response:
        assert response.status == 200
    while (last := await ask(**{"x-api-key": key})).status == 200:  # noqa: ASYNC110 - of what time does, no event tells
        await asyncio.sleep(0.05)
    assert await code_of(last) == (401, "expired_api_key")


async def test_own_routes_take_tokens_too(start_gate: StartGate, idp: IdentityProvider) -> None:
    async with start_gate(trusting(idp)) as gate:
        ada, eve = idp.token(), idp.token(sub="eve")
        made = await gate.post("/v1/conversations", {"id": "mine"}, key=ada)
        assert made.status == 201
        assert (await gate.get("/v1/conversations/mine", key=ada)).status == 200
        assert (await gate.get("/v1/conversations/mine", key=eve)).status == 404


async def test_a_model_that_one_may_not_use_answers_in_no_others_place(start_gate: StartGate) -> None:
    settings = Settings.model_validate(
        {"models": {"large": {"url": refused_url(), "fallbacks": ["echo"]}, "echo": "http://127.0.0.1:9"}}
    )
    async with start_gate(settings) as gate:
        gate.registry.put(Endpoint(endpoint_id="large", model="large", url=refused_url(), upstream_model="x"))
        _, both = KeyStore(gate.database).create("both", scopes=["model:large", "model:echo"])
        _, one = KeyStore(gate.database).create("one", scopes=["model:large"])
        await known(gate, one)
        while len((await (await gate.get("/v1/models")).json())["data"]) < 2:
            pass
        ask = {**HELLO, "model": "large"}
        answered = await gate.post("/v1/chat/completions", ask, key=both)
        assert (answered.status, answered.headers["x-parkway-model"]) == (200, "echo")
        assert (await gate.post("/v1/chat/completions", ask, key=one)).status in (502, 503)
        assert len(gate.upstream.bodies) == 1


async def test_what_was_refused_and_what_was_changed_stands_in_the_audit_log(
    start_gate: StartGate, idp: IdentityProvider, tmp_path: Path
) -> None:
    source = tmp_path / "parkway.yaml"
    source.write_text("models: {}")
    async with start_gate(trusting(idp), source) as gate:  # which the file does not say: it is taken at the first look
        await gate.post("/v1/chat/completions", HELLO, key=idp.token(exp=time.time() - 60))
        _, other = KeyStore(gate.database).create("other", scopes=["model:echo"])
        await known(gate, other)
        await gate.get("/metrics", key=other)
        await gate.post("/v1/chat/completions", {**HELLO, "model": "secret"}, key=other)

        def entries() -> list[str]:
            with gate.database.read() as connection:
                return list(connection.execute(select(schema.audit.c.entry)).scalars())

        for words in (
            ('"deny"', '"expired_token"'),
            ('"deny"', '"GET /metrics"', '"not_allowed"'),
            ('"deny"', '"chat"', '"not_allowed"', '"secret"'),
            ('"configuration.reload"', "identity.issuers"),
        ):
            await until(
                lambda words=words: any(all(word in entry for word in words) for entry in entries()), f"{words}"
            )
