"""The version of the tables in a database."""

from __future__ import annotations

from sqlalchemy import Connection, inspect, text


def current_revision(connection: Connection) -> str | None:
    """The last migration that this database went through; None if it has not seen any."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()
