"""Counters that several gateways share, in Redis; while it is away, each counts its share for itself."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from parkway.core.errors import StoreUnavailable
from parkway.core.tasks import Tasks
from parkway.policy.counters import Grant, MemoryCounters, Refusal, Standing
from parkway.policy.rule import Charge, Rule

if TYPE_CHECKING:
    from redis.asyncio import Redis

log = logging.getLogger(__name__)

SCRIPT = Path(__file__).with_name("counters.lua").read_text(encoding="utf-8")
_SHA = hashlib.sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()

MAX_BATCH = 256
"""Operations in one call of the script: Redis does nothing else meanwhile."""

MAX_WAITING = 20_000
"""Operations that may wait for their turn; more than that, and Redis counts as away."""

_BEAT_S = 1.0
_LOST_AFTER_S = 5.0  # a process that has not been heard of for so long no longer has a share
_RETRY_S = 1.0


@dataclass(slots=True)
class _Take:
    charges: Sequence[Charge]
    lease: int
    lease_s: float
    answer: asyncio.Future[Grant | Refusal]


@dataclass(slots=True)
class _Settle:
    grant: Grant
    used: Sequence[float]


class SharedCounters:
    """Implements `Counters` over Redis.

    Everything that waits at one moment goes in one call of one script: a decision costs a part of a round trip, and
    what is settled after it was taken is settled after it in Redis, too. A caller that leaves while it waits has what
    it would have taken given back.

    Args:
        redis: Closed by whoever made it.
        timeout_s: What does not answer within it is away.
        on_outage: `local`: each process holds itself to its share of the limits; `refuse`: nothing passes.
    """

    def __init__(
        self,
        redis: Redis,
        *,
        prefix: str,
        timeout_s: float,
        on_outage: Literal["local", "refuse"] = "local",
        local: MemoryCounters | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._redis = redis
        self._prefix = f"{{{prefix}}}:limits"
        self._timeout_s = timeout_s
        self.on_outage = on_outage
        self._local = MemoryCounters() if local is None else local
        self._clock = clock
        self._waiting: deque[_Take | _Settle] = deque()
        self._wanted = asyncio.Event()
        self._name = f"{os.getpid():x}-{os.urandom(6).hex()}"
        self._pumping: asyncio.Task[None] | None = None
        self.away = False
        """Whether Redis was away when it was last asked."""
        self.processes = 1
        """Gateways that share the limits, as last known."""

    def start(self, tasks: Tasks) -> None:
        """Starts to speak to Redis. Before it, and after `close`, a `take` waits in vain."""
        self._pumping = tasks.start(self._pump(), name="counters")
        tasks.every(_BEAT_S, self._beat, name="counters-beat")

    async def close(self) -> None:
        """Settles what is left, if Redis is there."""
        if self._pumping is not None:
            self._pumping.cancel()
            await asyncio.wait([self._pumping])
        left = [self._encoded(operation) for operation in self._waiting if isinstance(operation, _Settle)]
        if left and not self.away:
            try:
                await self._ask(left)
            except Exception as error:  # noqa: BLE001 - the leases end by themselves
                log.warning("limits: %d requests unsettled in Redis at the end: %r", len(left), error)

    async def take(self, charges: Sequence[Charge], lease: int, lease_s: float) -> Grant | Refusal:
        """As in `Counters`.

        Raises:
            StoreUnavailable: Redis is away, and `on_outage` is `refuse`.
        """
        if not charges:
            return Grant(lease, charges, ())
        if self.away or len(self._waiting) >= MAX_WAITING:
            return self._without(charges, lease)
        answer: asyncio.Future[Grant | Refusal] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Take(charges, lease, lease_s, answer))
        self._wanted.set()
        try:
            return await answer
        except asyncio.CancelledError:
            if answer.done() and not answer.cancelled() and answer.exception() is None:
                self._give_back(answer.result())  # answered at the very moment at which the caller left
            raise

    def settle(self, grant: Grant, used: Sequence[float]) -> None:
        if grant.local:
            self._local.settle(grant, used)
        elif len(self._waiting) < MAX_WAITING:  # what is not settled is free again when its lease ends
            self._waiting.append(_Settle(grant, used))
            self._wanted.set()

    def learn(self, name: str, subject: str, start_ms: int, spent: float) -> None:
        self._local.learn(name, subject, start_ms, spent)

    def spent(self, rule: Rule, subject: str) -> Standing:
        return self._local.spent(rule, subject)

    def _without(self, charges: Sequence[Charge], lease: int) -> Grant | Refusal:
        """The decision while Redis is away."""
        if self.on_outage == "refuse":
            raise StoreUnavailable(
                "Limits cannot be checked while Redis is away, and `limits.on_outage` is `refuse`; try again.",
                retry_after_s=_RETRY_S,
            )
        return self._local.take_now(charges, lease, self.processes, local=True)

    async def _pump(self) -> None:
        """Sends what waits, batch by batch, and looks for Redis while it is away."""
        while True:
            _end_if_cancelled()
            if self.away:
                await asyncio.sleep(_RETRY_S)
            else:
                await self._wanted.wait()
            self._wanted.clear()
            batch = [self._waiting.popleft() for _ in range(min(MAX_BATCH, len(self._waiting)))]
            if self._waiting:
                self._wanted.set()
            try:
                answers = await self._ask([self._encoded(operation) for operation in batch])
                self._back()
                for operation, answer in zip(batch, answers, strict=True):
                    if isinstance(operation, _Take):
                        self._told(operation, answer)
            except Exception as error:  # noqa: BLE001 - whatever is wrong with Redis, nobody may wait for it
                self._lost(error, batch)

    async def _ask(self, operations: list[list[object]]) -> list[list[Any]]:
        from redis.exceptions import NoScriptError

        packed = msgspec.msgpack.encode(operations)
        async with asyncio.timeout(self._timeout_s):
            try:
                answer: Any = await self._redis.evalsha(_SHA, 1, self._prefix, packed)
            except NoScriptError:
                answer = await self._redis.eval(SCRIPT, 1, self._prefix, packed)
        return msgspec.msgpack.decode(answer)

    def _encoded(self, operation: _Take | _Settle) -> list[object]:
        """An operation as `counters.lua` reads it."""
        if isinstance(operation, _Take):
            listed = [self._encoded_charge(charge) for charge in operation.charges]
            return ["take", f"{self._name}-{operation.lease:x}", operation.lease_s * 1e6, listed]
        grant = operation.grant
        settled = [
            [f"{rule.name}:{charge.subject}", int(rule.form), charge.amount, used, rule.per_s / 1e6, standing.start_ms]
            for charge, used, standing in zip(grant.charges, operation.used, grant.standings, strict=True)
            if (rule := charge.rule).measure != "requests"
        ]
        return ["settle", f"{self._name}-{grant.lease:x}", settled]

    def _encoded_charge(self, charge: Charge) -> list[object]:
        rule, subject = charge.rule, charge.subject
        seed = self._local.spent(rule, subject) if rule.budget else Standing(0)
        flags = int(rule.hard) + (2 if rule.measure == "requests" else 0)
        return [
            f"{rule.name}:{subject}", int(rule.form), charge.amount, rule.limit, rule.full, rule.per_s / 1e6,
            rule.period or "", flags, seed.start_ms, seed.spent,
        ]  # fmt: skip

    def _told(self, take: _Take, answer: list[Any]) -> None:
        """Hands an answer to whoever waits for it."""
        refused, wait_us, standings = answer
        if refused:
            spent, reserved, _ = standings[0]
            wait_s = None if wait_us < 0 else wait_us / 1e6
            if not take.answer.done():
                take.answer.set_result(Refusal(take.charges[refused - 1], wait_s, spent, reserved))
            return
        grant = Grant(take.lease, take.charges, [Standing(*standing) for standing in standings])
        if take.answer.done():  # it left while it waited
            self._give_back(grant)
            return
        for charge, standing in zip(take.charges, grant.standings, strict=True):
            if charge.rule.budget:
                self._local.learn(charge.rule.name, charge.subject, standing.start_ms, standing.spent)
        take.answer.set_result(grant)

    def _give_back(self, taken: Grant | Refusal) -> None:
        if isinstance(taken, Grant):
            self.settle(taken, [0.0] * len(taken.charges))

    def _lost(self, error: Exception, batch: list[_Take | _Settle]) -> None:
        if not self.away:
            what = "each gateway holds itself to its share" if self.on_outage == "local" else "requests are refused"
            log.warning("limits: Redis is away (%s: %s); %s until it is back", type(error).__name__, error, what)
        self.away = True
        # Settling goes on where it stopped; a lease that was settled already is not settled twice.
        self._waiting.extendleft(operation for operation in reversed(batch) if isinstance(operation, _Settle))
        takes = [operation for operation in (*batch, *self._waiting) if isinstance(operation, _Take)]
        self._waiting = deque(operation for operation in self._waiting if isinstance(operation, _Settle))
        for take in takes:
            if not take.answer.done():
                try:
                    take.answer.set_result(self._without(take.charges, take.lease))
                except StoreUnavailable as refusal:
                    take.answer.set_exception(refusal)

    def _back(self) -> None:
        if self.away:
            log.warning("limits: Redis is back")
        self.away = False

    async def _beat(self) -> None:
        """Tells the others that this process lives, and counts them."""
        if self.away:
            return
        now = time.time()
        key = f"{self._prefix}:processes"
        try:
            async with asyncio.timeout(self._timeout_s), self._redis.pipeline(transaction=False) as pipeline:
                pipeline.zadd(key, {self._name: now})
                pipeline.zremrangebyscore(key, "-inf", now - _LOST_AFTER_S)
                pipeline.zcard(key)
                pipeline.expire(key, 60)
                answers = await pipeline.execute()
            self.processes = max(1, int(answers[2]))
        except Exception as error:  # noqa: BLE001 - the pump finds out what it means, and says so
            log.debug("limits: no word of the other gateways: %r", error)
        _end_if_cancelled()


def _end_if_cancelled() -> None:
    """Redis's client may swallow the cancellation of a call, and answer or fail as if there had been none."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
