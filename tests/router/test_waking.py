"""Models that sleep: woken once, for as long as somebody waits, and told of when they cannot be."""

from __future__ import annotations

import asyncio

import pytest

from parkway.core.errors import EndpointFailed, NoEndpoint
from parkway.router.config import RouterConfig
from parkway.router.endpoint import Endpoint, EndpointSource
from parkway.router.router import Router
from parkway.router.view import View
from tests.router.conftest import call, until
from tests.router.upstreams import ANSWER, upstream


def sleeping(model: str = "m") -> Endpoint:
    return Endpoint(
        endpoint_id=f"{model}#0", model=model, url="http://not-started.invalid/v1", upstream_model=model, state="asleep"
    )


class Alarm:
    """Counts who wakes what, and does what the test says: shows `up` in the view, raises `error`, or hangs."""

    def __init__(self, view: View, up: Endpoint | None = None, error: NoEndpoint | None = None) -> None:
        self.view = view
        self.up = up
        self.error = error
        self.woken: list[str] = []
        self.cancelled = 0
        self.go = asyncio.Event()

    async def wake(self, model: str) -> None:
        self.woken.append(model)
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.error is not None:
            raise self.error
        if self.up is not None:
            # The view hears of it later than whoever loaded it.
            asyncio.get_running_loop().call_later(0.05, self.view.load, [self.up])


async def ask(router: Router, **changes: object) -> bytes:
    async with router.send(call(**changes)) as reply:  # type: ignore[arg-type]
        return await reply.read(1 << 20)


async def started(view: View, alarm: Alarm | None) -> Router:
    router = Router(view, RouterConfig(health_interval_s=3600), wake=alarm.wake if alarm else None)
    await router.start()
    return router


async def test_many_requests_wake_it_once_and_all_are_answered() -> None:
    view = View([sleeping()])
    async with upstream() as up:
        alarm = Alarm(view, up=up.endpoint())
        router = await started(view, alarm)
        asking = asyncio.gather(*(ask(router) for _ in range(20)))
        await until(lambda: alarm.woken)
        alarm.go.set()
        assert await asking == [ANSWER] * 20
        await router.close()
    assert alarm.woken == ["m"]


async def test_why_it_cannot_be_woken_is_told_to_all_at_once_and_the_next_tries_anew() -> None:
    view = View([sleeping()])
    alarm = Alarm(view, error=NoEndpoint("no weights", retry_after_s=30))
    router = await started(view, alarm)
    alarm.go.set()
    errors = await asyncio.gather(*(ask(router) for _ in range(3)), return_exceptions=True)
    assert [(type(error), str(error)) for error in errors] == [(NoEndpoint, "no weights")] * 3
    assert all(isinstance(error, NoEndpoint) and error.retry_after_s == 30 for error in errors)
    assert len({id(error) for error in errors}) == 3, "each request has its own traceback"
    with pytest.raises(NoEndpoint, match="no weights"):
        await ask(router)
    assert alarm.woken == ["m", "m"]
    await router.close()


async def test_at_the_deadline_it_is_told_to_come_again_and_the_wish_is_taken_back() -> None:
    alarm = Alarm(View([sleeping()]))
    router = await started(alarm.view, alarm)
    with pytest.raises(NoEndpoint, match="still being loaded at the request's deadline") as caught:
        await ask(router, deadline_s=0.05)
    assert caught.value.retry_after_s
    await until(lambda: alarm.cancelled == 1)
    await router.close()


async def test_one_that_leaves_does_not_take_the_wish_of_the_others_back() -> None:
    view = View([sleeping()])
    async with upstream() as up:
        alarm = Alarm(view, up=up.endpoint())
        router = await started(view, alarm)
        async with asyncio.TaskGroup() as group:
            leaves, stays = group.create_task(ask(router)), group.create_task(ask(router))
            await until(lambda: alarm.woken)
            leaves.cancel()
            await until(leaves.done)
            alarm.go.set()
        assert stays.result() == ANSWER
        assert alarm.cancelled == 0
        await router.close()


async def test_one_that_slept_in_again_unseen_is_woken_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("parkway.router.waking._SEEN_WITHIN_S", 0.05)
    view = View([sleeping()])
    async with upstream() as up:
        alarm = Alarm(view)  # says that it is awake, and the view never shows it
        alarm.go.set()
        router = await started(view, alarm)
        asking = asyncio.gather(*(ask(router) for _ in range(3)))
        await until(lambda: len(alarm.woken) >= 2)
        alarm.up = up.endpoint()
        assert await asking == [ANSWER] * 3
        await router.close()


async def test_without_anybody_to_wake_it_it_is_unavailable() -> None:
    router = await started(View([sleeping()]), None)
    with pytest.raises(NoEndpoint, match="m#0 is asleep"):
        await ask(router)
    await router.close()


@pytest.mark.parametrize("late_s", [0.02, 0.4])  # within `retry_pause_s`, and after the second attempt
async def test_an_engine_that_goes_to_sleep_under_a_request_is_woken_for_it(late_s: float) -> None:
    async with upstream() as up:
        view = View([gone("local")])
        alarm = Alarm(view, up=up.endpoint())
        alarm.go.set()
        router = await started(view, alarm)
        asyncio.get_running_loop().call_later(late_s, view.load, [sleeping()])
        assert await ask(router) == ANSWER
        assert alarm.woken == ["m"]
        await router.close()


async def test_of_a_server_elsewhere_there_is_no_news_to_wait_for() -> None:
    view = View([gone("config")])
    router = await started(view, Alarm(view))
    asyncio.get_running_loop().call_later(0.4, view.load, [sleeping()])
    with pytest.raises(EndpointFailed, match="attempt 2"):
        await ask(router)
    await router.close()


def gone(source: EndpointSource) -> Endpoint:
    """An endpoint at whose address nobody listens."""
    return Endpoint(endpoint_id="m#0", model="m", url="http://127.0.0.1:9/v1", upstream_model="m", source=source)
