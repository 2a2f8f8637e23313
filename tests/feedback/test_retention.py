"""Forgetting what is old, and nothing else."""

from sqlalchemy import insert, select

from parkway.feedback.log import write
from parkway.feedback.retention import prune
from parkway.store import schema
from parkway.store.sql import Database
from tests.feedback.records import make_record


def test_the_oldest_go_first_within_the_limit(database: Database) -> None:
    with database.begin() as connection:
        write(connection, [make_record(request_id=f"req_{number}", started_ms=number) for number in range(10)])
        for number in range(10):
            row = {"feedback_id": f"fb_{number}", "request_id": "req_9", "key_id": "alice", "created_ms": number}
            connection.execute(insert(schema.feedback).values(thumb=1, **row))

    def left() -> tuple[list[int], list[int]]:
        with database.read() as connection:
            requests = connection.scalars(select(schema.requests.c.started_ms).order_by("started_ms")).all()
            feedback = connection.scalars(select(schema.feedback.c.created_ms).order_by("created_ms")).all()
            return list(requests), list(feedback)

    def removed(limit: int) -> int:
        with database.begin() as connection:
            return prune(connection, older_than_ms=7, limit=limit)

    assert removed(limit=4) == 4
    assert left() == ([4, 5, 6, 7, 8, 9], list(range(10)))
    assert removed(limit=5) == 5
    assert left() == ([7, 8, 9], list(range(2, 10)))
    assert removed(limit=100) == 5
    assert left() == ([7, 8, 9], [7, 8, 9])
    assert removed(limit=100) == 0
