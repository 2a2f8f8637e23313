"""Answers in Redis, which every gateway finds."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import msgspec

from parkway.aggregate.response_cache.question import KeptAnswer

if TYPE_CHECKING:
    from redis.asyncio import Redis

log = logging.getLogger(__name__)

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
        self._ttl_ms = max(1, round(ttl_s * 1000))
        self._timeout_s = timeout_s
        self._max_bytes = max_bytes
        self.away = False
        """Whether the last attempt failed."""

    async def get(self, key: bytes) -> KeptAnswer | None:
        try:
            async with asyncio.timeout(self._timeout_s):
                found = await self._redis.get(self._prefix + key)
        except _failures() as error:
            self._failed(error)
            return None
        self._worked()
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

    def clear(self, model: str | None = None) -> None:
        """Nothing is in the memory of this process; what cannot be found any more goes when it is too old."""

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
