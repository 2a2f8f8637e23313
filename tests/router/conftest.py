"""Routers and calls for the tests of this folder."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from parkway.router.call import Call
from parkway.router.config import RouterConfig
from parkway.router.endpoint import Endpoint
from parkway.router.router import Router
from parkway.router.view import View

NewRouter = Callable[..., Awaitable[Router]]


@pytest.fixture
async def new_router() -> AsyncIterator[NewRouter]:
    """Starts a router over endpoints (or a view) with changed settings; closed after the test.

    Health checks stay out of the way (an hour apart, after the first) unless the test asks for them.
    """
    routers: list[Router] = []

    async def start(*endpoints: Endpoint, view: View | None = None, **changes: object) -> Router:
        settings = {"health_interval_s": 3600, "retry_pause_s": 0.01, **changes}
        router = Router(view or View(endpoints), RouterConfig.model_validate(settings))
        routers.append(router)
        await router.start()
        return router

    yield start
    for router in routers:
        await router.close()


def call(model: str = "m", *, body: bytes = b'{"model":"m"}', deadline_s: float = 20.0, **changes: str) -> Call:
    return Call(
        model=model,
        path="/chat/completions",
        body=body,
        request_id="req_1",
        deadline=time.monotonic() + deadline_s,
        **changes,
    )


async def until(true: Callable[[], object], timeout_s: float = 30) -> None:
    """Waits for what no event tells of; gives up only when it is certain that it will not come."""
    async with asyncio.timeout(timeout_s):
        while not true():  # noqa: ASYNC110 - what is waited for is a plain attribute
            await asyncio.sleep(0.002)
