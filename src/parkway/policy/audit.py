"""The audit log: every decision, taken in memory on the request path and appended to the chain beside it."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from parkway.core.configuration import Section
from parkway.core.tasks import Tasks
from parkway.policy.chain import MAX_DETAIL_CHARS, Entry, append, now_ms
from parkway.policy.repeats import Repeats
from parkway.store.sql import Database
from parkway.store.writer import Writer

if TYPE_CHECKING:
    from parkway.policy.guardrails.guardrails import Decision

log = logging.getLogger(__name__)

MAX_NAME_CHARS = 128

_LOOK_S = 0.01


class AuditConfig(Section):
    """What the audit log keeps, and how hard it tries.

    Attributes:
        level: `all` decisions, or `denials` alone: everything but `allow`.
        queue_size: Entries that may wait for the store.
        batch_size: Entries that one transaction appends.
        flush_interval_s: The longest that an entry waits while the store is well.
        on_full: With a full queue a request waits (`block_briefly`) or its entry is given up at once (`shed`). What is
            given up is counted in an entry of its own.
        block_s: How long `block_briefly` waits for a place before it gives up too.
        repeats_per_minute: Refusals of one kind that get entries of their own, for each key, and for each address that
            comes without a valid one; those beyond are counted.
        anchor_interval_s: How often the worker seals the chain.
        retention_days: Older entries are removed; the chain stays provable from the next on.
        key_file: The key of the seals; `audit.key` in the home, which is made at the first start, unless given.
    """

    level: Literal["all", "denials"] = "all"
    queue_size: int = Field(default=20_000, ge=1, le=1_000_000)
    batch_size: int = Field(default=1000, ge=1, le=10_000)
    flush_interval_s: float = Field(default=0.2, gt=0, le=60)
    on_full: Literal["block_briefly", "shed"] = "block_briefly"
    block_s: float = Field(default=0.25, ge=0, le=60)
    repeats_per_minute: int = Field(default=60, ge=1, le=100_000)
    anchor_interval_s: float = Field(default=60.0, gt=0, le=86_400)
    retention_days: int = Field(default=365, ge=1, le=36_500)
    key_file: str | None = None


class AuditLog:
    """Decisions on their way into the chain. Used from the event loop alone.

    An entry is in the chain at least once: one whose transaction broke in its very commit may stand there twice.
    """

    def __init__(self, database: Database, config: AuditConfig, clock: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._config = config
        self._pending: deque[Entry] = deque()
        self._repeats = Repeats(config.repeats_per_minute, clock)
        self._unmarked = 0
        self._writer = Writer("audit log", "entries", config.flush_interval_s, self._waiting, self._write_batch)
        self.allowed = config.level == "all"
        """Whether what is allowed has entries too; who finds it false need not make one."""
        self.lost = 0
        """Decisions given up so far."""

    def replace(self, config: AuditConfig) -> None:
        """Another configuration from now on; what waits for the store still gets there."""
        self._config = config
        self._writer.interval_s = config.flush_interval_s
        self._repeats.replace(config.repeats_per_minute)
        self.allowed = config.level == "all"

    @property
    def full(self) -> bool:
        return len(self._pending) >= self._config.queue_size

    async def room(self) -> None:
        """For a request that finds the log `full`: waits a little for the store, if the configuration says so."""
        if self._config.on_full == "shed":
            return
        until = time.monotonic() + self._config.block_s
        # The writer makes room for a thousand at a time: an event would wake all who wait for each of them.
        while self.full and time.monotonic() < until:  # noqa: ASYNC110 - as said
            await asyncio.sleep(_LOOK_S)

    def append(self, entry: Entry) -> None:
        """Queues `entry`. Never waits and never raises: in a full queue it is given up, and a later entry says so."""
        if self.full:
            if self._unmarked == 0:
                log.error("audit log: entries are lost: the store is too slow or away (audit.queue_size, on_full)")
            self._unmarked += entry.count
            self.lost += entry.count
            return
        if len(entry.model) > MAX_NAME_CHARS:
            entry.model = entry.model[:MAX_NAME_CHARS]
        if len(entry.detail) > MAX_DETAIL_CHARS:
            entry.detail = entry.detail[:MAX_DETAIL_CHARS]
        self._pending.append(entry)

    def refuse(self, entry: Entry) -> None:
        """`append` for a refusal, which anybody can have again and again: beyond a number a minute it is counted."""
        if self._repeats.passes(entry):
            self.append(entry)

    def found(self, decision: Decision) -> None:
        """Appends what a guardrail has found, which holds no word of the content; repeats like `refuse`."""
        self.refuse(
            Entry(
                kind="guardrail",
                action=decision.direction,
                at_ms=now_ms(),
                outcome=decision.action,
                key_id=decision.key_id,
                model=decision.model,
                request_id=decision.request_id,
                detail=f"{decision.guardrail} ({decision.check}): {decision.kind}",
                count=decision.count,
            )
        )

    def administer(
        self, action: str, detail: str = "", *, actor: str = "", key_id: str = "", outcome: str = ""
    ) -> None:
        """Says that something was administered: `configuration.reload`, `conversation.delete`.

        Args:
            detail: What exactly, for people, without secrets.
            key_id: Whose key did it; `actor` where it was none.
            outcome: The code of the error if it was refused.
        """
        self.append(
            Entry(
                kind="administration",
                action=action,
                at_ms=now_ms(),
                detail=detail,
                actor=actor,
                key_id=key_id,
                outcome=outcome,
            )
        )

    def start(self, tasks: Tasks) -> None:
        """Starts the writer."""
        self._writer.start(tasks)

    async def close(self, timeout_s: float = 5.0) -> None:
        """Appends what is left, for at most `timeout_s`; what is left then is lost, and the log file says how much."""
        self._pending.extend(self._repeats.due(at_once=True))
        if not await self._writer.close(timeout_s):
            self.lost += len(self._pending)
            log.error("audit log: %d entries are lost: the store was away while Parkway stopped", len(self._pending))
            self._pending.clear()

    def _waiting(self) -> int:
        self._pending.extend(self._repeats.due())
        return len(self._pending) + self._unmarked

    async def _write_batch(self) -> int:
        batch = list(itertools.islice(self._pending, self._config.batch_size))
        marked, size = self._unmarked, len(batch)
        if marked:
            batch.append(Entry(kind="lost", action="shed", at_ms=now_ms(), count=marked))
        await self._database.run(lambda connection: append(connection, batch))
        for _ in range(size):
            self._pending.popleft()
        self._unmarked -= marked
        return size + marked
