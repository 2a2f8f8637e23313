"""The ledger: what was spent of budgets, in the store, written beside the request path."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

from sqlalchemy import Connection, select, tuple_
from sqlalchemy.exc import DataError, IntegrityError

from parkway.core.errors import StoreUnavailable
from parkway.core.tasks import Tasks
from parkway.policy.budgets import BudgetConfig
from parkway.policy.periods import Period, start_of
from parkway.store import schema
from parkway.store.sql import Database

log = logging.getLogger(__name__)

FLUSH_INTERVAL_S = 0.5
"""What was spent within this time, and what was in flight, is what `kill -9` may cost."""

MAX_ROWS = 200_000
"""The most accounts that are read at the start, and that may wait for a store that is away."""

_BATCH = 200

# What a store says to a value that it will never take, as for the request log.
_REFUSALS = (DataError, IntegrityError, OverflowError)

# Additions and not sums, so that several processes may write; the sum comes back, with what others have added.
_ADD = (
    "INSERT INTO budgets (kind, subject, period, period_start_ms, tokens, micro_usd, updated_ms) {rows} "
    "ON CONFLICT (kind, subject, period, period_start_ms) DO UPDATE SET "
    "tokens = budgets.tokens + excluded.tokens, micro_usd = budgets.micro_usd + excluded.micro_usd, "
    "updated_ms = excluded.updated_ms RETURNING kind, subject, period, period_start_ms, tokens, micro_usd"
)
_ARRAYS = _ADD.format(
    rows="SELECT * FROM unnest(%s::text[], %s::text[], %s::text[], %s::bigint[], %s::bigint[], %s::bigint[], "
    "%s::bigint[])"
)


class Account(NamedTuple):
    """One budget of one subject in one of its periods."""

    kind: str
    subject: str
    period: Period
    start_ms: int


class Spent(NamedTuple):
    """What an account has spent."""

    tokens: int
    micro_usd: int


Learn = Callable[[Account, Spent], None]


class Ledger:
    """Adds up what is spent and writes it every half second.

    Args:
        learn: Told what the store has, at the start and after each write.
    """

    def __init__(self, database: Database, learn: Learn) -> None:
        self._database = database
        self._learn = learn
        self._pending: dict[Account, Spent] = {}
        self._writer: asyncio.Task[None] | None = None
        self._away = False

    def add(self, account: Account, tokens: int, micro_usd: int) -> None:
        """Notes that so much more was spent. Never waits."""
        before = self._pending.get(account)
        if before is not None:
            self._pending[account] = Spent(before.tokens + tokens, before.micro_usd + micro_usd)
        elif len(self._pending) < MAX_ROWS:
            self._pending[account] = Spent(tokens, micro_usd)

    async def load(self, budgets: Iterable[BudgetConfig]) -> None:
        """Reads what was spent of `budgets` in the periods that run now.

        Raises:
            StoreUnavailable: The store does not answer.
        """
        now_ms = time.time_ns() // 1_000_000
        wanted = sorted({(budget.kind, budget.period, start_of(budget.period, now_ms)) for budget in budgets})
        if wanted:
            rows = await self._database.run(lambda connection: accounts(connection, wanted), write=False)
            for account, spent in rows:
                self._learn(account, spent)

    def start(self, tasks: Tasks) -> None:
        """Starts the writer."""
        self._writer = tasks.every(FLUSH_INTERVAL_S, self.flush, name="ledger")

    async def close(self, timeout_s: float = 5.0) -> None:
        """Writes what is left, for at most `timeout_s`."""
        if self._writer is not None:
            self._writer.cancel()
            await asyncio.wait([self._writer])
        try:
            async with asyncio.timeout(timeout_s):
                await self.flush()
        except TimeoutError:
            pass
        if self._pending:
            log.warning("ledger: the store was away while Parkway stopped; %d accounts unwritten", len(self._pending))

    async def flush(self) -> None:
        """Writes what is pending now; while the store is away it stays pending and is tried again."""
        left = len(self._pending)  # what comes meanwhile is written the next time, together with more
        while left > 0:
            # Sorted: two writers must not lock each other out. A batch and not all: this is the event loop's time.
            batch = dict(sorted(itertools.islice(self._pending.items(), _BATCH)))
            for account in batch:
                del self._pending[account]
            try:
                totals = await self._database.run(lambda connection, batch=batch: _write(connection, batch))
            except BaseException as error:
                for account, spent in batch.items():
                    self.add(account, spent.tokens, spent.micro_usd)
                if not isinstance(error, StoreUnavailable):
                    raise
                if not self._away:
                    log.warning("ledger: the store is away (%s); what is spent waits for it", error.message)
                self._away = True
                return
            self._away = False
            left -= len(batch)
            for account, spent in totals:
                self._learn(account, spent)


def accounts(connection: Connection, wanted: Sequence[tuple[str, str, int]]) -> list[tuple[Account, Spent]]:
    """The accounts of these kinds, periods and starts of a period, those that were used last first."""
    table = schema.budgets.c
    query = (
        select(table.kind, table.subject, table.period, table.period_start_ms, table.tokens, table.micro_usd)
        .where(tuple_(table.kind, table.period, table.period_start_ms).in_(wanted))
        .order_by(table.updated_ms.desc())
        .limit(MAX_ROWS)
    )
    return [(Account(*row[:4]), Spent(*row[4:])) for row in connection.execute(query)]


def _write(connection: Connection, batch: dict[Account, Spent]) -> list[tuple[Account, Spent]]:
    """Adds a batch and returns the sums. What the store will never take must not keep the rest from it."""
    try:
        with connection.begin_nested():
            return _add(connection, batch)
    except _REFUSALS as error:
        if len(batch) == 1:
            log.error("ledger: the store refuses %r: %s", batch, error)
            return []
    return [sums for account, spent in batch.items() for sums in _write(connection, {account: spent})]


def _add(connection: Connection, batch: dict[Account, Spent]) -> list[tuple[Account, Spent]]:
    """In one statement: with many keys there is about one account for each request, and one by one costs as much again
    as all the rest of a request."""
    now_ms = time.time_ns() // 1_000_000
    rows = [(*account, *spent, now_ms) for account, spent in batch.items()]
    if connection.dialect.name == "sqlite":
        sums = connection.exec_driver_sql(_values(len(rows)), tuple(value for row in rows for value in row))
    else:
        sums = connection.exec_driver_sql(_ARRAYS, tuple(list(column) for column in zip(*rows, strict=True)))
    return [(Account(*row[:4]), Spent(*row[4:])) for row in sums]


@lru_cache(maxsize=_BATCH)
def _values(rows: int) -> str:
    marks = ", ".join(["(?, ?, ?, ?, ?, ?, ?)"] * rows)
    return _ADD.format(rows=f"VALUES {marks}")
