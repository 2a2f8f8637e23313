"""What is written beside the request path: all of it, and when the store is back if it is away."""

from __future__ import annotations

import asyncio
import logging

import pytest

from parkway.core.errors import StoreUnavailable
from parkway.core.tasks import Tasks
from parkway.store.writer import Writer


class Shelf:
    """Takes two at once, after it has failed `failures` times; with `stuck` it never ends."""

    def __init__(self, waiting: int, *, failures: int = 0, stuck: bool = False) -> None:
        self.waiting = waiting
        self.failures = failures
        self.stuck = stuck
        self.rounds = 0
        self.empty = asyncio.Event()

    def count(self) -> int:
        if not self.waiting:
            self.empty.set()
        return self.waiting

    async def write_batch(self) -> int:
        if self.stuck:
            await asyncio.Event().wait()
        if self.failures:
            self.failures -= 1
            raise StoreUnavailable("nobody there")
        written = min(2, self.waiting)
        self.waiting -= written
        self.rounds += 1
        if not self.waiting:
            self.empty.set()
        return written


async def test_it_writes_until_nothing_waits_and_again_later() -> None:
    shelf = Shelf(5)
    async with Tasks("test") as tasks:
        Writer("test log", "lines", 0.001, shelf.count, shelf.write_batch).start(tasks)
        await shelf.empty.wait()
        assert shelf.waiting == 0
        shelf.waiting = 3
        shelf.empty.clear()
        await shelf.empty.wait()
        assert shelf.waiting == 0


async def test_what_comes_while_it_writes_has_its_turn_in_the_next_round() -> None:
    shelf = Shelf(4)

    async def write_and_get_more() -> int:
        written = await shelf.write_batch()
        shelf.waiting += 2
        return written

    async with Tasks("test") as tasks:
        Writer("test log", "lines", 60, shelf.count, write_and_get_more).start(tasks)
        await asyncio.sleep(0.02)
    assert (shelf.rounds, shelf.waiting) == (2, 4)


async def test_an_outage_is_told_once_and_so_is_its_end(caplog: pytest.LogCaptureFixture) -> None:
    shelf = Shelf(3, failures=4)
    with caplog.at_level(logging.WARNING):
        async with Tasks("test") as tasks:
            Writer("test log", "lines", 0.001, shelf.count, shelf.write_batch).start(tasks)
            await shelf.empty.wait()
    assert [record.message for record in caplog.records] == [
        "test log: the store is away (nobody there); lines wait and are tried again",
        "test log: the store is back after 4 failed attempts",
    ]


@pytest.mark.parametrize("started", [True, False])
async def test_closing_writes_what_is_left(started: bool) -> None:
    shelf = Shelf(5)
    writer = Writer("test log", "lines", 60, shelf.count, shelf.write_batch)
    async with Tasks("test") as tasks:
        if started:
            writer.start(tasks)
            await shelf.empty.wait()
            shelf.waiting = 4
        assert await writer.close(timeout_s=30)
    assert shelf.waiting == 0


@pytest.mark.parametrize("shelf", [{"stuck": True}, {"failures": 10**9}])
async def test_closing_says_that_its_time_was_not_enough(shelf: dict[str, int]) -> None:
    stuck = Shelf(1, **shelf)  # pyright: ignore[reportArgumentType]
    writer = Writer("test log", "lines", 0.001, stuck.count, stuck.write_batch)
    assert not await writer.close(timeout_s=0.02)
