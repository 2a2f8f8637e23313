"""Usage, added up by both databases."""

from __future__ import annotations

import pytest
from sqlalchemy import insert

from parkway.feedback import usage as module
from parkway.feedback.usage import GROUPS, GroupBy, usage
from parkway.store import schema
from parkway.store.sql import Database
from tests.cli.test_usage import request

DAY_MS = 86_400_000
NOON_MS = 20_000 * DAY_MS + DAY_MS // 2  # of 2024-10-04


@pytest.fixture
def filled(database: Database) -> Database:
    rows = [
        {
            **request(number, f"k{number % 3}", user="u", team=f"t{number % 2}", task=f"task{number}"),
            "started_ms": NOON_MS + number * DAY_MS,
            "cost_usd": 0.000001 * number,
        }
        for number in range(10)
    ]
    with database.begin() as connection:
        connection.execute(insert(schema.requests), rows)
    return database


@pytest.mark.parametrize(
    ("group_by", "groups"),
    [
        ("key", ["k0", "k2", "k1"]), ("user", ["u"]), ("team", ["t1", "t0"]), ("model", ["m"]), ("agent", [None]),
        ("task", [f"task{number}" for number in range(9, -1, -1)]),
        ("day", [f"2024-10-{day:02}" for day in range(4, 14)]),
    ],
)  # fmt: skip
def test_groups_come_in_order_and_add_up(filled: Database, group_by: GroupBy, groups: list[str | None]) -> None:
    with filled.read() as connection:
        report = usage(connection, group_by, 0, NOON_MS * 2)
    assert [row.group for row in report.data] == groups
    assert (report.total.requests, report.total.prompt_tokens, report.total.completion_tokens) == (10, 100, 50)
    assert report.total.cost_usd == 0.000045
    assert sum(row.requests for row in report.data) == 10


def test_the_window_has_its_beginning_and_not_its_end(filled: Database) -> None:
    with filled.read() as connection:
        report = usage(connection, "day", NOON_MS, NOON_MS + 2 * DAY_MS, {"team": "t0"})
    assert [row.group for row in report.data] == ["2024-10-04"]


def test_the_total_has_what_the_list_has_no_room_for(filled: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_GROUPS", 3)
    with filled.read() as connection:
        report = usage(connection, "task", 0, NOON_MS * 2)
        assert [row.group for row in report.data] == ["task9", "task8", "task7"]
        assert (report.total.requests, report.total.cost_usd) == (10, 0.000045)
        for group_by in GROUPS:
            nothing = usage(connection, group_by, 0, 1)
            assert (nothing.data, nothing.total.requests, nothing.total.cost_usd) == ([], 0, 0)
