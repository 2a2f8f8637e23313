"""The figures, held against a plain calculation over the same records."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import pytest
from sqlalchemy import insert

from parkway.feedback.log import write
from parkway.feedback.record import RequestRecord
from parkway.feedback.stats import ModelStats, Percentiles, stats
from parkway.store import schema
from parkway.store.sql import Database
from tests.feedback.records import STARTED_MS, make_record

WINDOW_MS = 60_000


def figures(database: Database, since_ms: int = STARTED_MS, until_ms: int = STARTED_MS + WINDOW_MS) -> list[ModelStats]:
    with database.read() as connection:
        return stats(connection, since_ms, until_ms)


def store(database: Database, records: Sequence[RequestRecord]) -> None:
    with database.begin() as connection:
        assert write(connection, records) == 0


def give(database: Database, *scores: tuple[str, int | None, float | None]) -> None:
    """Feedback, the oldest first: request id, thumb, score."""
    with database.begin() as connection:
        for number, (request_id, thumb, score) in enumerate(scores):
            row = {"feedback_id": f"fb_{number}", "request_id": request_id, "key_id": "alice", "created_ms": number}
            connection.execute(insert(schema.feedback).values(thumb=thumb, score=score, **row))


def nearest_rank(values: Sequence[float]) -> Percentiles | None:
    if not values:
        return None
    ordered = sorted(values)
    return Percentiles(*(ordered[math.ceil(percent * len(ordered) / 100) - 1] for percent in (50, 95, 99)))


def test_nothing_happened(database: Database) -> None:
    assert figures(database) == []


def test_one_request(database: Database) -> None:
    store(database, [make_record()])
    assert figures(database) == [
        ModelStats(
            model="park-mini",
            requests=1,
            errors=0,
            error_rate=0.0,
            requests_per_s=1 / 60,
            tokens_per_s=34 / 60,
            first_token_ms=Percentiles(25.5, 25.5, 25.5),
            total_ms=Percentiles(250.25, 250.25, 250.25),
            mean_score=None,
            scores=0,
        )
    ]


@pytest.mark.parametrize("seed", range(3))
def test_like_a_plain_calculation(database: Database, seed: int) -> None:
    rng = random.Random(seed)
    records = [
        make_record(
            model=rng.choice(["a", "b", "c"]),
            outcome=rng.choice(["ok", "ok", "ok", "ok", "cancelled", "endpoint_failed"]),
            first_token_ms=rng.choice([None, rng.lognormvariate(3, 1), 5.0]),
            total_ms=rng.lognormvariate(5, 1),
            completion_tokens=rng.choice([None, rng.randrange(500)]),
            started_ms=STARTED_MS + rng.randrange(-1000, WINDOW_MS + 1000),
        )
        for _ in range(rng.choice([250, 400]))
    ]
    store(database, records)
    inside = [record for record in records if STARTED_MS <= record.started_ms < STARTED_MS + WINDOW_MS]
    measured = figures(database)
    assert [row.model for row in measured] == sorted({record.model for record in inside})
    for row in measured:
        mine = [record for record in inside if record.model == row.model]
        good = [record for record in mine if record.outcome == "ok"]
        failed = sum(record.outcome == "endpoint_failed" for record in mine)
        assert (row.requests, row.errors, row.error_rate) == (len(mine), failed, failed / len(mine))
        assert row.requests_per_s == len(mine) / 60
        assert row.tokens_per_s == pytest.approx(sum(record.completion_tokens or 0 for record in mine) / 60)
        assert row.total_ms == nearest_rank([record.total_ms for record in good])
        assert row.first_token_ms == nearest_rank([r.first_token_ms for r in good if r.first_token_ms is not None])


def test_the_window_takes_its_start_and_not_its_end(database: Database) -> None:
    store(database, [make_record(started_ms=STARTED_MS + offset) for offset in (-1, 0, 999, 1000)])
    (row,) = figures(database, STARTED_MS, STARTED_MS + 1000)
    assert row.requests == 2
    assert row.requests_per_s == 2.0


def test_a_model_that_only_failed_has_no_latency(database: Database) -> None:
    store(database, [make_record(outcome="endpoint_failed", status=502, endpoint_id="ep_1")])
    (row,) = figures(database)
    assert (row.error_rate, row.total_ms, row.first_token_ms) == (1.0, None, None)


def test_names_that_nobody_serves_share_a_row(database: Database) -> None:
    with database.begin() as connection:
        connection.execute(
            insert(schema.endpoints).values(
                endpoint_id="ep_2",
                model="down-now",
                url="http://127.0.0.1:1/v1",
                upstream_model="down-now",
                weight=1,
                state="down",
                source="config",
                created_ms=0,
                updated_ms=0,
            )
        )
    nowhere = {"endpoint_id": None, "status": 404, "outcome": "model_not_found"}
    store(
        database,
        [
            *(make_record(model=f"typo-{number}", **nowhere) for number in range(20)),
            make_record(model="", **nowhere),
            make_record(model="down-now", endpoint_id=None, status=503, outcome="no_healthy_endpoint"),
            make_record(model="removed-since", endpoint_id="ep_gone"),
        ],
    )
    assert {row.model: row.requests for row in figures(database)} == {
        "down-now": 1,
        "removed-since": 1,
        "unknown": 21,
    }


def test_scores_are_the_latest_word_on_each_request(database: Database) -> None:
    store(database, [make_record(request_id=f"req_{number}") for number in range(5)])
    store(database, [make_record(request_id="req_old", started_ms=STARTED_MS - 1)])
    give(
        database,
        ("req_0", 1, None),
        ("req_0", -1, None),  # changed their mind: 0
        ("req_1", None, 0.25),
        ("req_2", 1, 0.5),  # a score says more than a thumb
        ("req_3", None, None),  # a comment alone
        ("req_old", 1, None),
        ("req_lost", 1, None),
    )
    give_later = [("req_1", None, None)]  # a comment later leaves the score
    with database.begin() as connection:
        for request_id, thumb, score in give_later:
            row = {"feedback_id": "fb_9", "request_id": request_id, "key_id": "alice", "created_ms": 99}
            connection.execute(insert(schema.feedback).values(thumb=thumb, score=score, comment="hm", **row))
    (row,) = figures(database)
    assert row.scores == 3
    assert row.mean_score == pytest.approx((0 + 0.25 + 0.5) / 3)
