"""Reading an answer: as it comes, whole, cut, too long, too late, and not to its end."""

from __future__ import annotations

import asyncio

import pytest

from parkway.core.errors import DeadlineExceeded, EndpointFailed, StreamInterrupted
from tests.router.conftest import NewRouter, call
from tests.router.test_router import outstanding
from tests.router.upstreams import Behaviour, Exchange, answer, cut_within_body, stream, upstream


async def test_chunks_come_as_they_arrive(new_router: NewRouter) -> None:
    """The next part is sent only after the one before was seen: nothing may be held back."""
    gate = asyncio.Event()
    async with upstream(stream(b"data: 1\n\n", b"da", b"ta: 2\n\n", pause=gate)) as up:
        router = await new_router(up.endpoint())
        gate.set()
        seen = []
        async with router.send(call()) as reply:
            assert reply.headers["Content-Type"] == "text/event-stream"
            async for chunk in reply.chunks():
                seen.append(chunk)
                gate.set()
    assert seen == [b"data: 1\n\n", b"da", b"ta: 2\n\n"]


@pytest.mark.parametrize("fault", [stream(b"data: 1\n\n", end="cut"), cut_within_body()])
async def test_a_cut_stream_is_told(new_router: NewRouter, fault: Behaviour) -> None:
    async with upstream(fault) as up:
        router = await new_router(up.endpoint())
        seen = []
        with pytest.raises(StreamInterrupted, match="e1"):
            async with router.send(call()) as reply:
                async for chunk in reply.chunks():
                    seen.append(chunk)
        assert b"".join(seen) in (b"data: 1\n\n", b"{")
        assert outstanding(router) == 0


async def test_a_cut_answer_is_no_answer(new_router: NewRouter) -> None:
    async with upstream(cut_within_body()) as up:
        router = await new_router(up.endpoint())
        with pytest.raises(EndpointFailed):
            async with router.send(call()) as reply:
                await reply.read(1 << 20)


async def test_an_answer_that_is_too_long_is_not_kept(new_router: NewRouter) -> None:
    async with upstream(stream(*[b"x" * 10_000] * 100)) as up:
        router = await new_router(up.endpoint())
        with pytest.raises(EndpointFailed, match="over 50000 bytes"):
            async with router.send(call()) as reply:
                await reply.read(50_000)


async def test_an_answer_of_just_the_limit_passes(new_router: NewRouter) -> None:
    async with upstream(answer(b"x" * 50_000)) as up:
        router = await new_router(up.endpoint())
        async with router.send(call()) as reply:
            assert await reply.read(50_000) == b"x" * 50_000


@pytest.mark.parametrize("whole", [True, False])
async def test_the_deadline_holds_within_the_answer(new_router: NewRouter, whole: bool) -> None:
    gate = asyncio.Event()
    gate.set()
    async with upstream(stream(b"a", b"b", pause=gate)) as up:
        router = await new_router(up.endpoint())
        with pytest.raises(DeadlineExceeded, match="e1"):
            async with router.send(call(deadline_s=0.3)) as reply:
                if whole:
                    await reply.read(100)
                else:
                    async for _ in reply.chunks():
                        pass
        assert outstanding(router) == 0


@pytest.mark.parametrize("how", ["leave", "raise", "cancel"])
async def test_leaving_early_cuts_the_connection(new_router: NewRouter, how: str) -> None:
    """The endpoint notices without having to write first: that is what frees its slot."""
    left = asyncio.Event()

    async def begin_and_wait(exchange: Exchange) -> None:
        await stream(b"data: 1\n\n", end="open")(exchange)
        await exchange.left()
        left.set()

    async with upstream(begin_and_wait) as up:
        router = await new_router(up.endpoint())
        begun = asyncio.Event()

        async def read() -> None:
            async with router.send(call()) as reply:
                async for _ in reply.chunks():
                    begun.set()
                    if how == "leave":
                        return
                    if how == "raise":
                        raise KeyError

        task = asyncio.ensure_future(read())
        await asyncio.wait_for(begun.wait(), 10)
        if how == "cancel":
            task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert outstanding(router) == 0
        await asyncio.wait_for(left.wait(), 10)


async def test_the_end_of_the_protocol_can_be_waited_for(new_router: NewRouter) -> None:
    """A reader stops at `[DONE]`, which comes before the end of the body; the connection is used again all the same."""

    async def end_late(exchange: Exchange) -> None:
        await stream(b"data: [DONE]\n\n", end="open")(exchange)
        await asyncio.sleep(0.01)
        await exchange.send(b"0\r\n\r\n")

    async with upstream(end_late) as up:
        router = await new_router(up.endpoint())
        await asyncio.wait_for(up.checked.wait(), 10)
        for _ in range(5):
            async with router.send(call()) as reply:
                async for chunk in reply.chunks():
                    if chunk.endswith(b"[DONE]\n\n"):
                        break
                await reply.finish(grace_s=5)
        assert up.connections <= 2


async def test_an_endpoint_that_never_ends_its_body_is_cut_off(new_router: NewRouter) -> None:
    async def never_end(exchange: Exchange) -> None:
        await stream(b"data: [DONE]\n\n", end="open")(exchange)
        await exchange.left()

    async with upstream(never_end) as up:
        router = await new_router(up.endpoint())
        async with router.send(call()) as reply:
            async for _ in reply.chunks():
                break
            await reply.finish(grace_s=0.01)
        assert outstanding(router) == 0
