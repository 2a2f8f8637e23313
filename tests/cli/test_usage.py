"""`parkway usage` and `parkway budgets`."""

from __future__ import annotations

import time
from pathlib import Path

from sqlalchemy import insert

from parkway.policy.keys import KeyStore
from parkway.policy.periods import start_of
from parkway.store import schema
from parkway.store.sql import Database
from tests.cli.conftest import Command

DAY_MS = 86_400_000


def request(number: int, key_id: str, *, age_ms: int = 1000, **more: object) -> dict[str, object]:
    return {
        "request_id": f"req_{number}", "key_id": key_id, "surface": "chat", "model": "m", "stream": False,
        "status": 200, "outcome": "ok", "total_ms": 1.0, "attempts": 1, "prompt_tokens": 10, "completion_tokens": 5,
        "started_ms": time.time_ns() // 1_000_000 - age_ms, "user": None, "team": None, "agent": None, "task": None,
        "cost_usd": None, **more,
    }  # fmt: skip


def fill(database: Database) -> str:
    key, _ = KeyStore(database).create("laptop")
    rows = [
        request(1, key.key_id, team="red", cost_usd=0.25, task="t"),
        request(2, key.key_id, team="red", cost_usd=0.5, age_ms=2 * DAY_MS),
        request(3, "gone", team="blue", model="n"),
        request(4, "gone", prompt_tokens=None, completion_tokens=None, age_ms=40 * DAY_MS),
    ]
    with database.begin() as connection:
        connection.execute(insert(schema.requests), rows)
    return key.key_id


class TestUsage:
    def test_a_table_with_its_total(self, parkway: Command, database: Database) -> None:
        fill(database)
        done = parkway("usage", "--by", "team")
        assert [line.split() for line in done.out.splitlines()] == [
            ["team", "requests", "prompt", "tokens", "completion", "tokens", "usd"],
            ["red", "2", "20", "10", "0.750000"],
            ["blue", "1", "10", "5", "0.000000"],
            ["total", "3", "30", "15", "0.750000"],
        ]

    def test_keys_are_shown_by_name_and_other_windows_and_filters(self, parkway: Command, database: Database) -> None:
        key_id = fill(database)
        found = parkway("usage", "--by", "key", "--json").json
        assert isinstance(found, dict)
        assert [(row["group"], row["name"]) for row in found["data"]] == [(key_id, "laptop"), ("gone", None)]
        assert parkway("usage", "--by", "key").out.splitlines()[1].startswith("laptop")
        found = parkway("usage", "--since", "1d", "--by", "day", "--team", "red", "--json").json
        assert isinstance(found, dict)
        today = time.strftime("%Y-%m-%d", time.gmtime(time.time() - 1))
        assert [(row["group"], row["requests"]) for row in found["data"]] == [(today, 1)]
        found = parkway("usage", "--since", "365d", "--by", "task", "--json").json
        assert isinstance(found, dict)
        assert {row["group"]: row["requests"] for row in found["data"]} == {"t": 1, None: 3}

    def test_nothing_yet(self, parkway: Command) -> None:
        done = parkway("usage")
        assert (done.code, done.out) == (0, "")
        assert "no requests" in done.err
        assert parkway("usage", "--by", "colour").code == 2


class TestBudgets:
    def test_each_with_what_is_spent_and_left(self, parkway: Command, database: Database, tmp_path: Path) -> None:
        key, _ = KeyStore(database).create("laptop")
        (tmp_path / "parkway.yaml").write_text(
            "models: {m: {url: 'http://127.0.0.1:9', price: {prompt_usd_per_million: 1}}}\n"
            "budgets:\n"
            "  - {kind: key, period: day, tokens: 1000}\n"
            "  - {kind: key, period: day, subject: laptop, tokens: 100, usd: 2}\n"
            "  - {kind: team, subject: red, period: total, tokens: 10}\n"
        )
        today = start_of("day", time.time_ns() // 1_000_000)
        rows = [
            {"subject": key.key_id, "tokens": 60, "micro_usd": 500_000},
            {"subject": "other", "tokens": 100, "micro_usd": 0},
            {"subject": "old", "tokens": 100, "micro_usd": 0, "period_start_ms": today - DAY_MS},
        ]
        filler = {"kind": "key", "period": "day", "period_start_ms": today, "updated_ms": 0}
        with database.begin() as connection:
            connection.execute(insert(schema.budgets), [{**filler, **row} for row in rows])
        lines = [line.split("  ") for line in parkway("budgets").out.splitlines()]
        cells = [[cell.strip() for cell in line if cell.strip()] for line in lines]
        assert [row[:7] for row in cells[1:]] == [
            ["key", "laptop", "day", "100 tokens", "60 tokens", "40 tokens", "60.0"],
            ["key", "laptop", "day", "$2.0000", "$0.5000", "$1.5000", "25.0"],
            ["key", "other", "day", "1000 tokens", "100 tokens", "900 tokens", "10.0"],
            ["team", "red", "total", "10 tokens", "0 tokens", "10 tokens", "0.0"],
        ]
        assert cells[4][7:] == ["-"]
        assert [row["kind"] for row in parkway("budgets", "--kind", "team", "--json").json] == ["team"]  # pyright: ignore[reportGeneralTypeIssues]

    def test_none(self, parkway: Command) -> None:
        done = parkway("budgets")
        assert (done.code, done.out) == (0, "")
        assert "section `budgets`" in done.err
