"""Both places where answers are kept pass the same tests."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from parkway.aggregate.response_cache.question import KeptAnswer
from parkway.aggregate.response_cache.redis_shelf import RedisShelf
from parkway.aggregate.response_cache.shelf import MemoryShelf, Shelf
from parkway.store.redis import RedisConfig, connect
from tests import servers

ANSWER = KeptAnswer("echo", 12.5, b'{"choices": []}')


def redis_shelf(redis: Redis, *, ttl_s: float = 60.0, timeout_s: float = 5.0) -> RedisShelf:
    return RedisShelf(redis, prefix="test", ttl_s=ttl_s, timeout_s=timeout_s, max_bytes=1024)


@pytest.fixture
async def redis(redis_server: servers.Redis) -> AsyncIterator[Redis]:
    client = connect(RedisConfig(url=redis_server.url, timeout_s=5))
    assert client is not None
    await client.flushdb()
    yield client
    await client.aclose()


@pytest.fixture(params=["memory", "redis"])
def shelf(request: pytest.FixtureRequest) -> Shelf:
    if request.param == "memory":
        return MemoryShelf(1 << 20, ttl_s=60)
    return redis_shelf(request.getfixturevalue("redis"))


async def test_what_is_put_is_found_until_it_is_dropped(shelf: Shelf) -> None:
    key = bytes(range(32))
    assert await shelf.get(key, "echo", (0, 0)) is None
    await shelf.put(key, ANSWER)
    assert await shelf.get(key, "echo", (0, 0)) == ANSWER
    newer = KeptAnswer("echo", 13.5, b"newer")
    await shelf.put(key, newer)
    assert await shelf.get(key, "echo", (0, 0)) == newer
    assert await shelf.get(key[::-1], "echo", (0, 0)) is None
    await shelf.drop(key)
    assert await shelf.get(key, "echo", (0, 0)) is None
    await shelf.drop(key)


async def test_memory_is_bounded_and_the_longest_unused_goes_first() -> None:
    shelf = MemoryShelf(10_000, ttl_s=60)
    for number in range(100):
        await shelf.put(b"%d" % number, KeptAnswer("echo", 0, b"x" * 1000))
        await shelf.get(b"0", "echo", (0, 0))
        assert shelf.bytes <= 10_000
    assert await shelf.get(b"0", "echo", (0, 0)) is not None
    assert await shelf.get(b"99", "echo", (0, 0)) is not None
    assert await shelf.get(b"1", "echo", (0, 0)) is None
    await shelf.put(b"large", KeptAnswer("echo", 0, b"x" * 20_000))
    assert await shelf.get(b"large", "echo", (0, 0)) is None
    assert await shelf.get(b"99", "echo", (0, 0)) is not None


async def test_memory_forgets_what_is_too_old_and_what_is_cleared() -> None:
    now = [0.0]
    shelf = MemoryShelf(10_000, ttl_s=5, clock=lambda: now[0])
    await shelf.put(b"a", ANSWER)
    now[0] = 4.9
    assert await shelf.get(b"a", "echo", (0, 0)) == ANSWER
    now[0] = 5.0
    assert await shelf.get(b"a", "echo", (0, 0)) is None
    await shelf.put(b"a", ANSWER)
    await shelf.put(b"b", KeptAnswer("other", 0, b""))
    await shelf.clear("echo", 1)
    assert await shelf.get(b"a", "echo", (0, 0)) is None
    assert await shelf.get(b"b", "other", (0, 0)) == KeptAnswer("other", 0, b"")
    await shelf.clear("", 1)
    assert shelf.bytes == 0


async def test_redis_forgets_by_itself(redis: Redis) -> None:
    shelf = redis_shelf(redis, ttl_s=3600)
    await shelf.put(b"k", ANSWER)
    (name,) = await redis.keys("test:answer:*")
    assert 0 < await redis.pttl(name) <= 3_600_000


async def test_what_is_no_answer_in_redis_is_a_miss(redis: Redis) -> None:
    shelf = redis_shelf(redis)
    for value in (b"", b"\xc1", b"\x93\x01\x02\x03", b"x" * 10_000):
        await redis.set(b"test:answer:k", value)
        assert await shelf.get(b"k", "echo", (0, 0)) is None


async def test_a_redis_that_is_away_is_a_miss_and_told_once(
    redis_server: servers.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    client = connect(RedisConfig(url=redis_server.url, timeout_s=5))
    assert client is not None
    shelf = redis_shelf(client)
    await shelf.put(b"k", ANSWER)
    redis_server.stop()
    for _ in range(3):
        assert await shelf.get(b"k", "echo", (0, 0)) is None
        await shelf.put(b"k", ANSWER)
        await shelf.drop(b"k")
    assert len([line for line in caplog.messages if "does not answer" in line]) == 1
    redis_server.start()
    await shelf.put(b"k", ANSWER)
    assert await shelf.get(b"k", "echo", (0, 0)) == ANSWER
    assert len([line for line in caplog.messages if "is back" in line]) == 1
    await client.aclose()


async def test_a_redis_that_says_nothing_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = connect(RedisConfig(url=f"redis://127.0.0.1:{silent.getsockname()[1]}/0", timeout_s=30))
        assert client is not None
        shelf = redis_shelf(client, timeout_s=0.05)
        async with asyncio.timeout(20):
            assert await shelf.get(b"k", "echo", (0, 0)) is None
            await shelf.put(b"k", ANSWER)
        await client.aclose()


async def test_what_one_gateway_clears_no_other_finds_in_redis(redis: Redis) -> None:
    one, other = redis_shelf(redis), redis_shelf(redis)
    await one.put(b"k", ANSWER)
    await one.clear("echo", 3)
    assert await other.get(b"k", "echo", (0, 2)) is None, "though it has not heard of it"
    await other.put(b"k", ANSWER)  # an answer that was on its way
    assert await other.get(b"k", "echo", (0, 2)) is None
    assert await other.get(b"k", "echo", (0, 3)) == ANSWER
    assert await other.get(b"k", "another", (0, 2)) == ANSWER
    await one.clear("", 1)
    await one.clear("", 0)
    assert await other.get(b"k", "another", (0, 2)) is None
