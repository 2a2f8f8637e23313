"""Answers in Redis, which every gateway finds."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import msgspec

from parkway.aggregate.response_cache.question import Generation, KeptAnswer

if TYPE_CHECKING:
    from redis.asyncio import Redis

log = logging.getLogger(__name__)

_RAISE = """
if tonumber(ARGV[1]) > tonumber(redis.call('get', KEYS[1]) or '0') then
    redis.call('set', KEYS[1], ARGV[1], 'px', ARGV[2])
end
"""

_KNOWN_TO_ALL_MS = 60_000
"""By then every gateway has heard from the store what was cleared."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(KeptAnswer).decode


class RedisShelf:
    """Implements `Shelf` over Redis. One that is away, slow or holds something else is a miss, and told once.

    Args:
        redis: Answers with bytes; closed by whoever made it.
        prefix: Before the names of all keys.
        timeout_s: The longest that one answer is waited for.
        max_bytes: Of one answer; more was not put there by a gateway that is configured like this one.
    """

    def __init__(self, redis: Redis, *, prefix: str, ttl_s: float, timeout_s: float, max_bytes: int) -> None:
        self._redis = redis
        self._prefix = f"{prefix}:answer:".encode()
        self._cleared = f"{prefix}:cleared:".encode()
        self._ttl_ms = max(1, round(ttl_s * 1000))
        self._timeout_s = timeout_s
        self._max_bytes = max_bytes
        self.away = False
        """Whether the last attempt failed."""

    async def get(self, key: bytes, model: str, generation: Generation) -> KeptAnswer | None:
        try:
            async with asyncio.timeout(self._timeout_s):
                found, *cleared = await self._redis.mget(
                    self._prefix + key, self._cleared, self._cleared + model.encode()
                )
        except _failures() as error:
            self._failed(error)
            return None
        self._worked()
        if any(number is not None and int(number) > known for number, known in zip(cleared, generation, strict=True)):
            return None  # cleared, and we have not heard of it yet
        if not isinstance(found, bytes) or len(found) > self._max_bytes + 1024:
            return None
        try:
            return _decode(found)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return None

    async def put(self, key: bytes, answer: KeptAnswer) -> None:
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._redis.set(self._prefix + key, _encode(answer), px=self._ttl_ms)
        except _failures() as error:
            self._failed(error)
        else:
            self._worked()

    async def drop(self, key: bytes) -> None:
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._redis.delete(self._prefix + key)
        except _failures() as error:
            self._failed(error)

    async def clear(self, model: str, number: int) -> None:
        """Tells all gateways, with their next `get`. What cannot be found any more goes when it is too old."""
        try:
            async with asyncio.timeout(self._timeout_s):
                key, until_ms = self._cleared + model.encode(), self._ttl_ms + _KNOWN_TO_ALL_MS
                await self._redis.eval(_RAISE, 1, key, number, until_ms)
        except _failures() as error:
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        if not self.away:
            log.warning(
                "response cache: Redis does not answer within %g s (%s); until it does, nothing is found there",
                self._timeout_s, type(error).__name__,
            )  # fmt: skip
        self.away = True

    def _worked(self) -> None:
        if self.away:
            log.warning("response cache: Redis is back")
        self.away = False


def _failures() -> tuple[type[Exception], ...]:
    """What a Redis that cannot be used raises; imported late, because without one the package need not be there."""
    from redis.exceptions import RedisError

    return (RedisError, OSError, TimeoutError)
