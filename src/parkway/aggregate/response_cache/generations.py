"""Clearing: a number that stands in every key and is raised, so that no process finds an older answer any more."""

from __future__ import annotations

from sqlalchemy import Connection, select

from parkway.store.revisions import bump
from parkway.store.schema import revisions

TOPIC = "answers"  # of store.revisions

_OF_MODEL = f"{TOPIC}/"


class Generations:
    """How often the answers of each model, and all of them, were cleared. A model is cleared by its name alone."""

    def __init__(self) -> None:
        self._seen: dict[str, int] = {}

    def of(self, model: str) -> tuple[int, int]:
        """What stands in the keys of the model's answers."""
        return self._seen.get("", 0), self._seen.get(model, 0)

    def learn(self, seen: dict[str, int]) -> list[str]:
        """Takes over what `read` has found; returns the models that were cleared, as `""` where all were."""
        cleared = [model for model, number in seen.items() if number != self._seen.get(model, 0)]
        self._seen = seen
        return cleared


def read(connection: Connection) -> dict[str, int]:
    """How often each model's answers were cleared; under `""`, those of all models."""
    query = select(revisions.c.topic, revisions.c.revision).where(revisions.c.topic.startswith(_OF_MODEL))
    return {topic.removeprefix(_OF_MODEL): revision for topic, revision in connection.execute(query)}


def clear(connection: Connection, model: str | None = None) -> dict[str, int]:
    """Makes every answer that is kept, or every one of `model`, unfindable for all processes; returns as `read`."""
    bump(connection, _OF_MODEL + (model or ""))
    bump(connection, TOPIC)
    return read(connection)
