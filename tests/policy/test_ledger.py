"""The ledger: on both databases, by several writers, while the store is away, and after kill -9."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sqlalchemy import Connection

from parkway.core.errors import StoreUnavailable
from parkway.core.tasks import Tasks
from parkway.policy import ledger as module
from parkway.policy.budgets import BudgetConfig
from parkway.policy.ledger import Account, Ledger, Spent
from parkway.policy.periods import DAY_MS, start_of
from parkway.store.sql import Database

TODAY = start_of("day", time.time_ns() // 1_000_000)
ACCOUNT = Account("team", "red", "day", TODAY)
BUDGET = BudgetConfig(kind="team", period="day", tokens=1)

Known = dict[Account, Spent]


@pytest.fixture
def known() -> Known:
    """What the ledgers of a test have learned."""
    return {}


def opened(database: Database, known: Known) -> Ledger:
    return Ledger(database, known.__setitem__)


async def kept(database: Database) -> Known:
    found: Known = {}
    await opened(database, found).load([BUDGET])
    return found


async def test_what_is_added_is_written_and_read_back(database: Database, known: Known) -> None:
    ledger = opened(database, known)
    for number in range(500):
        ledger.add(ACCOUNT, 2, 3)
        ledger.add(Account("team", f"team {number}", "day", TODAY), number, 0)
    ledger.add(ACCOUNT._replace(start_ms=TODAY - DAY_MS), 7, 7)
    ledger.add(ACCOUNT._replace(kind="key"), 7, 7)
    await ledger.flush()
    found = await kept(database)
    assert found[ACCOUNT] == known[ACCOUNT] == Spent(1000, 1500)
    assert len(found) == 501


async def test_several_writers_add_up_and_learn_of_each_other(database: Database, known: Known) -> None:
    ledgers = [opened(database, known) for _ in range(3)]

    async def spend(ledger: Ledger) -> None:
        for _ in range(5):
            for subject in ("red", "blue"):
                ledger.add(ACCOUNT._replace(subject=subject), 1, 1)
            await ledger.flush()

    await asyncio.gather(*(spend(ledger) for ledger in ledgers))
    assert (await kept(database))[ACCOUNT] == Spent(15, 15)
    assert max(known.values()) == Spent(15, 15)


async def test_while_the_store_is_away_it_waits(
    database: Database, known: Known, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = opened(database, known)
    ledger.add(ACCOUNT, 1, 1)

    def away(*_: object) -> object:
        raise StoreUnavailable("away")

    with monkeypatch.context() as patched:
        patched.setattr(module, "_write", away)
        await ledger.flush()
        ledger.add(ACCOUNT, 2, 2)
        await ledger.flush()
    assert known == {}
    await ledger.close()
    assert known[ACCOUNT] == Spent(3, 3)


async def test_what_a_store_never_takes_does_not_keep_the_rest_from_it(database: Database, known: Known) -> None:
    ledger = opened(database, known)
    ledger.add(ACCOUNT, 1, 1)
    ledger.add(ACCOUNT._replace(subject="blue"), 2**70, 1)
    await ledger.flush()
    assert await kept(database) == {ACCOUNT: Spent(1, 1)}
    await ledger.close()


async def test_an_interrupted_write_is_not_forgotten(
    database: Database, known: Known, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = opened(database, known)
    ledger.add(ACCOUNT, 1, 1)
    begun = asyncio.Event()
    loop = asyncio.get_running_loop()
    write = module._write

    def slow(connection: Connection, batch: Known) -> object:
        loop.call_soon_threadsafe(begun.set)
        time.sleep(0.05)
        return write(connection, batch)

    with monkeypatch.context() as patched:
        patched.setattr(module, "_write", slow)
        async with Tasks("test") as tasks:
            task = tasks.start(ledger.flush(), name="flush")
            await begun.wait()
            task.cancel()
    await ledger.flush()
    assert (await kept(database))[ACCOUNT] == Spent(1, 1)


_SPENDER = """
import asyncio, sys, time
from parkway.core.tasks import Tasks
from parkway.policy.ledger import Account, Ledger
from parkway.store.sql import Database

async def main():
    ledger = Ledger(Database.open(sys.argv[1]), lambda account, spent: None)
    async with Tasks("spender") as tasks:
        ledger.start(tasks)
        for number in range(1_000_000):
            ledger.add(Account("team", "red", "day", int(sys.argv[2])), 1, 1)
            print(number + 1, time.monotonic(), flush=True)
            await asyncio.sleep(0.005)

asyncio.run(main())
"""


async def test_kill_minus_nine_costs_what_was_spent_last(tmp_path: Path) -> None:
    database = Database.open(f"sqlite:///{tmp_path}/parkway.db")
    database.migrate()
    process = subprocess.Popen(  # noqa: ASYNC220 - nobody else is on this loop
        [sys.executable, "-c", _SPENDER, f"sqlite:///{tmp_path}/parkway.db", str(TODAY)], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    spent: list[float] = []
    while not spent or spent[-1] - spent[0] < 2.0:
        spent.append(float(process.stdout.readline().split()[1]))
    process.kill()
    spent += [float(line.split()[1]) for line in process.stdout.read().splitlines() if line.count(b" ") == 1]
    process.wait()
    tokens = (await kept(database))[ACCOUNT].tokens
    # By the spender's own clock. Half a second on an idle machine; what is allowed here is for a busy one.
    assert sum(moment < spent[-1] - 1.5 for moment in spent) <= tokens <= len(spent)
    database.close()
