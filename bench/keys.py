"""How long the event loop stands still while a gateway with many keys learns of a change of one.

Three pauses, each the longest of several rounds: with nothing to do (the machine's own), while one key is created and
one revoked, and while all keys are read again, as after a restored copy of the database.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import hashlib
import secrets
import tempfile
import time
from collections.abc import Awaitable, Callable

from sqlalchemy import insert

from parkway.policy.key_ring import KeyRing
from parkway.policy.keys import KeyStore
from parkway.store.schema import keys
from parkway.store.sql import Database

_BEAT_S = 0.001


async def longest_pause_ms(work: Callable[[], Awaitable[object]]) -> float:
    """By how many milliseconds a timer of 1 ms was late at most while `work` ran."""
    running = asyncio.ensure_future(work())
    longest = 0.0
    while not running.done():
        begun = time.perf_counter()
        await asyncio.sleep(_BEAT_S)
        longest = max(longest, time.perf_counter() - begun - _BEAT_S)
    await running
    return longest * 1000


def fill(database: Database, count: int) -> None:
    """So many keys, created over the last year."""
    now_ms = time.time_ns() // 1_000_000
    rows = [
        {
            "key_id": secrets.token_hex(6), "name": f"key-{n}", "secret_hash": hashlib.sha256(b"%d" % n).digest(),
            "created_ms": now_ms - 60_000 - n * 300, "owner": f"user-{n % 1000}", "team": f"team-{n % 50}",
            "scopes": '["model:*"]',
        }
        for n in range(count)
    ]  # fmt: skip
    with database.begin() as connection:
        connection.execute(insert(keys), rows)


async def measure(database: Database, rounds: int) -> None:
    store, ring = KeyStore(database), KeyRing()
    await ring.load(database)
    gc.collect()
    gc.freeze()  # as the gateway does at its start

    async def changed() -> None:
        key, _ = await asyncio.to_thread(store.create, "new")
        await ring.load(database)
        await asyncio.to_thread(store.revoke, key.key_id)
        await ring.load(database)

    async def restored() -> None:
        ring.forget()
        await ring.load(database)

    for name, work in (
        ("nothing", lambda: asyncio.sleep(0.2)),
        ("one created, one revoked", changed),
        ("all read again", restored),
    ):
        pauses = [await longest_pause_ms(work) for _ in range(rounds)]
        print(f"{name:<28}{max(pauses):8.1f} ms at most, {sorted(pauses)[rounds // 2]:.1f} ms in the median")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        database = Database.open(f"sqlite:///{folder}/parkway.db")
        database.migrate()
        fill(database, arguments.keys)
        print(f"{arguments.keys} keys; pauses of the event loop, {arguments.rounds} rounds")
        asyncio.run(measure(database, arguments.rounds))
        database.close()


if __name__ == "__main__":
    main()
