"""A flight: one answer for several readers, each at its own pace, within bounds."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from parkway.core.errors import EndpointFailed
from parkway.pipeline.exchange import Exchange, Surface
from parkway.pipeline.flight import MAX_BYTES, Flight, Reader

PIECE = b"x" * (MAX_BYTES // 4)


def flight() -> Flight:
    nobody = cast("Any", None)
    exchange = Exchange(request_id="r", surface=Surface.CHAT, client=nobody, authorization=None, deadline=0)
    return Flight(exchange, deadline=1)


async def read(flight: Flight, reader: Reader) -> bytes:
    parts: list[bytes] = []
    while data := await flight.next(reader):
        parts.append(data)
    return b"".join(parts)


async def test_everybody_reads_everything_whenever_they_come() -> None:
    one = flight()
    early = asyncio.ensure_future(read(one, one.join()))
    await one.send(b"a", more=True)
    await asyncio.sleep(0)
    await one.send(b"b", more=True)
    late = asyncio.ensure_future(read(one, one.join()))
    await one.send(b"c", more=True)
    one.land()
    assert await early == await late == await read(one, one.join()) == b"abc"
    assert one.recorded() == b"abc"


async def test_an_error_comes_behind_what_was_sent() -> None:
    one = flight()
    reader = one.join()
    await one.send(b"a", more=True)
    one.land(EndpointFailed("broken"))
    assert await one.next(reader) == b"a"
    with pytest.raises(EndpointFailed, match="broken"):
        await one.next(reader)


async def test_a_long_answer_waits_for_a_slow_reader_who_is_alone() -> None:
    one = flight()
    reader = one.join()
    for _ in range(4):
        await one.send(PIECE, more=True)
    sending = asyncio.ensure_future(one.send(PIECE, more=True))
    await asyncio.sleep(0.01)
    assert not sending.done()
    assert not one.open
    assert len(await one.next(reader)) == 5 * len(PIECE)
    await sending
    one.land()
    assert await one.next(reader) == b""


async def test_who_holds_up_others_is_left_behind() -> None:
    one = flight()
    slow, quick = one.join(), one.join()
    reading = asyncio.ensure_future(read(one, quick))
    for _ in range(10):
        await one.send(PIECE, more=True)
        await asyncio.sleep(0)
    one.land()
    assert len(await reading) == 10 * len(PIECE)
    with pytest.raises(EndpointFailed, match="too slowly"):
        await one.next(slow)


async def test_the_last_one_who_leaves_ends_it() -> None:
    one = flight()
    one.task = asyncio.ensure_future(asyncio.sleep(60))
    first, second = one.join(), one.join()
    one.leave(first)
    await asyncio.sleep(0)
    assert not one.task.done()
    assert one.open
    one.leave(second)
    with pytest.raises(asyncio.CancelledError):
        await one.task
    assert not one.open
