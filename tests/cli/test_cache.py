"""`parkway cache`."""

from __future__ import annotations

from parkway.aggregate.response_cache.generations import Generations, read
from parkway.store.sql import Database
from tests.cli.conftest import Command


def test_answers_are_cleared_by_model_and_altogether(database: Database, parkway: Command) -> None:
    known = Generations()

    def cleared() -> list[str]:
        with database.read() as connection:
            return known.learn(read(connection))

    assert cleared() == []
    assert parkway("cache", "clear", "--model", "m").out == 'cleared the answers of "m"\n'
    assert cleared() == ["m"]
    assert (known.of("m"), known.of("n")) == ((0, 1), (0, 0))
    assert parkway("cache", "clear", "--json").json == {"cleared": True, "model": None}
    assert cleared() == [""]
    assert (known.of("m"), known.of("n")) == ((1, 1), (1, 0))
    assert cleared() == []
