"""Forgetting: requests, feedback and spans that are older than their `retention_days`."""

from sqlalchemy import Column, Connection, Table, delete, func, select

from parkway.store import schema

_NS_A_MS = 1_000_000


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


def prune_spans(connection: Connection, older_than_ms: int, limit: int) -> int:
    """Removes at most about `limit` spans that began before `older_than_ms`; to be called again like `prune`."""
    started = schema.spans.c.started_ns
    # Spans have two columns for a key, so that they go by their time: up to that of the oldest `limit`.
    oldest = select(started).where(started < older_than_ms * _NS_A_MS).order_by(started).limit(limit).subquery()
    newest = select(func.max(oldest.c.started_ns)).scalar_subquery()
    return connection.execute(delete(schema.spans).where(started <= newest)).rowcount


def _remove(
    connection: Connection, table: Table, key: Column[str], age: Column[int], older_than_ms: int, limit: int
) -> int:
    oldest = select(key).where(age < older_than_ms).order_by(age).limit(limit)
    return connection.execute(delete(table).where(key.in_(oldest))).rowcount
