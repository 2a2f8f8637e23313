"""Many API keys in a home at once: made one by one, a hundred thousand would take minutes."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

from sqlalchemy import insert

from parkway.policy.keys import KeyStore, ensure_first_key
from parkway.store import schema
from parkway.store.home import Home
from parkway.store.sql import Database


def mint(path: Path, count: int, teams: int = 50) -> list[str]:
    """Makes `count` keys, spread over `teams`, in the home at `path`, which nobody uses yet; returns their texts."""
    home = Home.open(path)
    database = Database.open(home.database_url)
    database.migrate()
    ensure_first_key(home, KeyStore(database))
    now_ms = round(time.time() * 1000)
    made = [(f"bench{number:07d}", f"{number:043d}") for number in range(count)]
    rows = [
        {
            "key_id": key_id,
            "name": key_id,
            "created_ms": now_ms,
            "team": f"team-{number % teams}",
            "secret_hash": hashlib.sha256(secret.encode()).digest(),
        }
        for number, (key_id, secret) in enumerate(made)
    ]
    with database.begin() as connection:
        connection.execute(insert(schema.keys), rows)
    database.close()
    return [f"pk-{key_id}-{secret}" for key_id, secret in made]
