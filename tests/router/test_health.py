"""Health checks: where they ask, what they make of the answer, and when they ask again."""

from __future__ import annotations

import asyncio

import pytest

from parkway.core.errors import NoEndpoint
from parkway.router.candidate import Candidate
from parkway.router.condition import Condition
from parkway.router.health import path_of_health
from parkway.router.router import Router
from parkway.router.view import View
from tests.router.conftest import NewRouter, until
from tests.router.test_router import ask
from tests.router.upstreams import Upstream, answer, close_unanswered, upstream


def only(router: Router) -> Candidate:
    (candidate,) = router._fleet.candidates()
    return candidate


def test_own_engines_are_asked_whether_they_are_ready_and_others_for_their_models() -> None:
    up = Upstream([], url="http://h:1/v1")
    local, other = ({"source": "local"}, "/readyz"), ({"url": "http://h:1/v1/"}, "/v1/models")
    for changes, path in (local, ({}, "/v1/models"), other):
        assert path_of_health(Candidate(up.endpoint(**changes), lambda: None)) == path


async def test_checks_carry_the_endpoints_key(new_router: NewRouter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPSTREAM_KEY", "sk-1")
    async with upstream() as up:
        await new_router(up.endpoint(api_key_env="UPSTREAM_KEY"))
        await asyncio.wait_for(up.checked.wait(), 10)
        assert (up.checks[0].path, up.checks[0].headers["authorization"]) == ("/v1/models", "Bearer sk-1")


async def test_an_endpoint_is_ejected_after_failures_in_a_row_and_restored_after_successes(
    new_router: NewRouter,
) -> None:
    async with upstream() as up:
        up.health_status = 503
        router = await new_router(
            up.endpoint(), health_interval_s=0.02, failures_to_eject=3, successes_to_restore=2
        )  # fmt: skip
        await until(lambda: only(router).condition is Condition.EJECTED)
        assert len(up.checks) == 3
        with pytest.raises(NoEndpoint, match="answered 503"):
            await ask(router)
        up.health_status = 200
        await until(lambda: only(router).condition is Condition.HEALTHY)
        assert (await ask(router))[0] == 200


@pytest.mark.parametrize(
    ("source", "status", "healthy"),
    [("config", 401, True), ("config", 404, True), ("config", 500, True),
     ("config", 503, False), ("local", 200, True), ("local", 401, False),
     ("local", 503, False)],
)  # fmt: skip
async def test_what_an_answer_means(new_router: NewRouter, source: str, status: int, healthy: bool) -> None:
    async with upstream() as up:
        up.health_status = status
        router = await new_router(up.endpoint(source=source), failures_to_eject=1)
        await until(lambda: only(router).check_at > 0)
        assert (only(router).condition is Condition.HEALTHY) is healthy


async def test_a_check_without_an_answer_fails(new_router: NewRouter) -> None:
    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(swallow, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        router = await new_router(Upstream([], url=url).endpoint(), health_timeout_s=0.05, failures_to_eject=1)
        await until(lambda: only(router).condition is Condition.EJECTED)
        assert only(router).circuit.fault == "its health check had no answer after 0.05 s"
        await router.close()


async def test_a_live_failure_is_checked_at_once(new_router: NewRouter) -> None:
    """The next regular check would be in an hour."""
    async with upstream(close_unanswered, answer()) as bad, upstream() as good:
        router = await new_router(bad.endpoint("e1", weight=10_000), good.endpoint("e2"))
        await until(lambda: all(candidate.check_at > 0 for candidate in router._fleet.candidates()))
        checks = len(bad.checks)
        assert (await ask(router))[2] == "e2"
        await until(lambda: len(bad.checks) > checks)
        await until(lambda: all(each.condition is Condition.HEALTHY for each in router._fleet.candidates()))


async def test_an_endpoint_that_stays_away_is_ejected_soon(new_router: NewRouter) -> None:
    async with upstream(close_unanswered) as up:
        router = await new_router(up.endpoint(), failures_to_eject=2)
        await until(lambda: only(router).check_at > 0)
        up.health_status = 503
        with pytest.raises(Exception, match="did not answer"):
            await ask(router)
        await until(lambda: only(router).condition is Condition.EJECTED)


async def test_an_answer_clears_a_suspicion(new_router: NewRouter) -> None:
    async with upstream() as up:
        up.health_status = 503
        router = await new_router(up.endpoint())
        only(router).suspect("connection refused")
        assert (await ask(router))[0] == 200
        assert only(router).condition is Condition.HEALTHY


async def test_new_endpoints_are_checked_at_once_and_absent_ones_not_at_all(new_router: NewRouter) -> None:
    async with upstream() as up, upstream() as down:
        view = View()
        await new_router(view=view)
        view.load([up.endpoint("e1"), down.endpoint("e2", state="down")])
        await asyncio.wait_for(up.checked.wait(), 10)
        assert not down.checks
        view.load([up.endpoint("e1"), down.endpoint("e2")])
        await asyncio.wait_for(down.checked.wait(), 10)
