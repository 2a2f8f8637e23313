"""What the worker does now and then, on both kinds of database."""

from __future__ import annotations

import time

from sqlalchemy import func, insert, select

from parkway.launch.worker import forget
from parkway.store import schema
from parkway.store.sql import Database


async def test_old_requests_are_forgotten_in_rounds(database: Database) -> None:
    now_ms = time.time_ns() // 1_000_000
    day_ms = 86_400_000
    rows = [
        {
            "request_id": f"req_{number}",
            "key_id": "k",
            "surface": "chat",
            "model": "m",
            "stream": False,
            "status": 200,
            "outcome": "ok",
            "total_ms": 1.0,
            "attempts": 1,
            "started_ms": now_ms - (100 if number < 2500 else 10) * day_ms,
        }
        for number in range(2510)
    ]
    with database.begin() as connection:
        connection.execute(insert(schema.requests), rows)
    assert await forget(database, retention_days=90) == 2500
    with database.read() as connection:
        assert connection.scalar(select(func.count()).select_from(schema.requests)) == 10
    assert await forget(database, retention_days=90) == 0
