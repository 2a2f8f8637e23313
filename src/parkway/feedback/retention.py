"""Forgetting: requests and feedback that are older than `feedback.retention_days`."""

from sqlalchemy import Column, Connection, Table, delete, select

from parkway.store import schema


def prune(connection: Connection, older_than_ms: int, limit: int) -> int:
    """Removes at most `limit` requests and feedback rows from before `older_than_ms`, oldest first.

    Returns:
        The rows removed. Call it again, each time in a transaction of its own, until it is less than `limit`:
        short transactions let the log's writer in between.
    """
    requests, feedback = schema.requests, schema.feedback
    removed = _remove(connection, requests, requests.c.request_id, requests.c.started_ms, older_than_ms, limit)
    if removed < limit:
        removed += _remove(
            connection, feedback, feedback.c.feedback_id, feedback.c.created_ms, older_than_ms, limit - removed
        )
    return removed


def _remove(
    connection: Connection, table: Table, key: Column[str], age: Column[int], older_than_ms: int, limit: int
) -> int:
    oldest = select(key).where(age < older_than_ms).order_by(age).limit(limit)
    return connection.execute(delete(table).where(key.in_(oldest))).rowcount
