"""The configuration changes while the gateway runs: all of it or nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.gateway.conftest import File, Gate
from tests.gateway.test_chat import HELLO, until
from tests.policy.idp import AUDIENCE, IdentityProvider


async def settles(caplog: pytest.LogCaptureFixture, *words: str, times: int = 1) -> None:
    """Waits until the log has every one of `words` so often."""
    await until(lambda: all(caplog.text.count(word) >= times for word in words), f"the log says {words}")


async def valid(gate: Gate) -> bool:
    return "parkway_configuration_valid 1.0" in await (await gate.get("/metrics")).text()


async def test_bounds_and_limits_change(live: Gate, file: File, caplog: pytest.LogCaptureFixture) -> None:
    assert (await live.post("/v1/chat/completions", HELLO)).status == 200
    file.write(bounds={"max_body_bytes": 10}, limits={"burst": 3, "rate_per_s": 0.001})
    await settles(caplog, "changed: bounds.max_body_bytes, limits.rate_per_s, limits.burst")
    assert (await live.post("/v1/chat/completions", HELLO)).status == 413
    statuses = [(await live.post("/v1/chat/completions", HELLO)).status for _ in range(4)]
    assert statuses[-1] == 429


async def test_guardrails_change(live: Gate, file: File, caplog: pytest.LogCaptureFixture) -> None:
    asked = {**HELLO, "messages": [{"role": "user", "content": "write to ada@example.com"}]}
    assert (await live.post("/v1/chat/completions", asked)).status == 200
    file.write(guardrails=[{"name": "private", "check": "personal_data", "on": "input", "action": "block"}])
    await settles(caplog, "changed: guardrails")
    assert (await live.post("/v1/chat/completions", asked)).status == 400
    file.write()
    await settles(caplog, "changed: guardrails", times=2)
    assert (await live.post("/v1/chat/completions", asked)).status == 200


async def test_a_request_keeps_what_it_began_with(live: Gate, file: File, caplog: pytest.LogCaptureFixture) -> None:
    begun, release = asyncio.Event(), asyncio.Event()

    async def waits(request: web.Request) -> web.StreamResponse:
        begun.set()
        await release.wait()
        return await live.upstream.echo(request)

    live.upstream.script = waits
    running = asyncio.ensure_future(live.post("/v1/chat/completions", HELLO))
    await begun.wait()
    file.write(bounds={"max_answer_bytes": 1})
    await settles(caplog, "was read again")
    release.set()
    assert (await running).status == 200
    live.upstream.script = live.upstream.echo
    assert (await live.post("/v1/chat/completions", HELLO)).status == 502


@pytest.mark.parametrize(
    ("sections", "reason"),
    [
        ({"limits": {"rate_per_s": "s3cret"}, "bounds": {"max_body_bytes": 10}}, "limits.rate_per_s"),
        ({"limit": {}, "bounds": {"max_body_bytes": 10}}, "unknown key"),
        ({"permissions": {"file": "missing.cedar"}, "bounds": {"max_body_bytes": 10}}, "missing.cedar"),
        (
            {
                "identity": {
                    "issuers": [
                        {
                            "issuer": "https://idp.example.com", "audience": "x", "algorithms": ["HS256"],
                            "secret_env": "PARKWAY_TEST_NOT_SET",
                        }
                    ]
                },
                "bounds": {"max_body_bytes": 10},
            },
            "PARKWAY_TEST_NOT_SET",
        ),
    ],
)  # fmt: skip
async def test_a_broken_file_changes_nothing_and_says_so(
    live: Gate, file: File, caplog: pytest.LogCaptureFixture, sections: dict[str, Any], reason: str
) -> None:
    assert await valid(live)
    file.write(**sections)
    await settles(caplog, "stays in force", reason)
    await asyncio.sleep(0.2)
    assert caplog.text.count("stays in force") == 1
    assert (await live.post("/v1/chat/completions", HELLO)).status == 200
    assert not await valid(live)
    ready = await live.get("/readyz")
    assert ready.status == 200
    (warning,) = (await ready.json())["warnings"]
    assert "the configuration as it is written now cannot be used" in warning
    assert "s3cret" not in warning
    file.write()
    await settles(caplog, "was read again")
    assert await valid(live)
    assert (await (await live.get("/readyz")).json())["warnings"] == []


async def test_a_file_that_goes_away_changes_nothing(live: Gate, file: File, caplog: pytest.LogCaptureFixture) -> None:
    file.path.unlink()
    await settles(caplog, "stays in force", "cannot be read")
    assert (await live.post("/v1/chat/completions", HELLO)).status == 200
    file.write(bounds={"max_body_bytes": 10})
    await settles(caplog, "was read again")
    assert (await live.post("/v1/chat/completions", HELLO)).status == 413


async def test_permissions_follow_their_own_file(
    live: Gate, file: File, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    policies = tmp_path / "permissions.cedar"
    policies.write_text("permit (principal, action, resource);")
    file.write(permissions={"file": "permissions.cedar"})
    await settles(caplog, "changed: permissions.file")
    assert (await live.post("/v1/chat/completions", HELLO)).status == 200
    policies.write_text('permit (principal, action == Action::"administer", resource);')
    async with asyncio.timeout(10):
        while (await live.post("/v1/chat/completions", HELLO)).status == 200:
            pass
    await settles(caplog, f"changed: what is in {policies}")
    policies.write_text("permit (principal")
    await settles(caplog, "stays in force", "permissions.cedar:1")
    assert (await live.post("/v1/chat/completions", HELLO)).status == 403
    policies.write_text("permit (principal, action, resource);")
    async with asyncio.timeout(10):
        while (await live.post("/v1/chat/completions", HELLO)).status == 403:
            pass
    assert await valid(live)


async def test_issuers_come_and_go(live: Gate, file: File, caplog: pytest.LogCaptureFixture) -> None:
    idp = IdentityProvider()
    await idp.start()
    token = idp.token()
    assert (await live.post("/v1/chat/completions", HELLO, key=token)).status == 401
    file.write(identity={"issuers": [{"issuer": idp.url, "audience": AUDIENCE}]})
    await settles(caplog, "changed: identity.issuers")
    assert (await live.post("/v1/chat/completions", HELLO, key=token)).status == 200
    file.write()
    await settles(caplog, "changed: identity.issuers", times=2)
    assert (await live.post("/v1/chat/completions", HELLO, key=token)).status == 401
    await idp.stop()


async def test_what_has_to_wait_is_named(live: Gate, file: File, caplog: pytest.LogCaptureFixture) -> None:
    file.write(
        store={"threads": 2}, router={"max_attempts": 1, "keepalive_s": 3},
        gateway={"port": 1, "workers": 2, "max_requests": 7},
        redis={"url": "redis://127.0.0.1:1"}, response_cache={"keep": "all", "place": "redis"},
        models={"park-mini": "park-mini", "host": "http://127.0.0.1:1"},
    )  # fmt: skip
    await settles(caplog, "takes effect at the next start")
    (line,) = [record.message for record in caplog.records if "next start" in record.message]
    assert set(line.partition(": ")[2].split(", ")) == {
        "store.threads", "gateway.workers", "redis.url", "response_cache.place", "models.park-mini.path",
    }  # fmt: skip
