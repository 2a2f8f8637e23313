"""`parkway stats`."""

from __future__ import annotations

import time

from sqlalchemy import insert

from parkway.store import schema
from parkway.store.sql import Database
from tests.cli.conftest import Command


def _fill(database: Database, model: str, total_ms: list[float], age_s: float = 10.0) -> None:
    started_ms = int((time.time() - age_s) * 1000)
    rows = [
        {
            "request_id": f"req_{model}_{age_s}_{number}",
            "key_id": "k",
            "surface": "chat",
            "model": model,
            "endpoint_id": f"{model}#0",
            "stream": True,
            "status": 200,
            "outcome": "ok",
            "completion_tokens": 10,
            "first_token_ms": total / 10,
            "total_ms": total,
            "attempts": 1,
            "started_ms": started_ms,
        }
        for number, total in enumerate(total_ms)
    ]
    with database.begin() as connection:
        connection.execute(insert(schema.requests), rows)


def test_the_figures_of_each_model(parkway: Command, database: Database) -> None:
    _fill(database, "park-mini", [float(number) for number in range(10, 1010, 10)])
    done = parkway("stats")
    header, row = done.out.splitlines()
    assert header.split()[:2] == ["model", "requests"]
    assert row.split() == ["park-mini", "100", "0.0", "0.03", "0.3", "50", "95", "99", "500", "950", "990", "-", "0"]


def test_as_json(parkway: Command, database: Database) -> None:
    _fill(database, "park-mini", [100.0])
    (row,) = parkway("stats", "--json").json
    assert row["model"] == "park-mini"
    assert row["total_ms"] == {"p50": 100.0, "p95": 100.0, "p99": 100.0}


def test_the_window_and_the_model(parkway: Command, database: Database) -> None:
    _fill(database, "new", [1.0])
    _fill(database, "old", [1.0], age_s=7200)
    names = [row["model"] for row in parkway("stats", "--json").json]
    assert names == ["new"]
    assert [row["model"] for row in parkway("stats", "--since", "3h", "--json").json] == ["new", "old"]
    assert [row["model"] for row in parkway("stats", "--since", "3h", "--model", "old", "--json").json] == ["old"]


def test_a_model_without_requests_names_the_nearest(parkway: Command, database: Database) -> None:
    _fill(database, "park-mini", [1.0])
    done = parkway("stats", "--model", "park-mni")
    assert done.code == 1
    assert done.err == 'error: model "park-mni" had no requests in this window. Did you mean "park-mini"?\n'


def test_nothing_yet(parkway: Command) -> None:
    done = parkway("stats")
    assert (done.code, done.out) == (0, "")
    assert "no requests in this window" in done.err
    assert parkway("stats", "--json").json == []
