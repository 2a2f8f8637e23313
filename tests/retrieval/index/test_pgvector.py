"""PostgreSQL as a store: what it is beside the contract."""

from __future__ import annotations

import threading

import psycopg
import pytest

from parkway.core.errors import ConfigurationError, IndexUnavailable
from parkway.core.tasks import start_thread
from parkway.retrieval.index.config import IndexConfig
from parkway.retrieval.index.index import Filter, Query
from parkway.retrieval.index.pgvector import PgvectorIndex, schema_of
from tests.retrieval.index.corpus import DIMENSIONS, passage, vectors
from tests.servers import Postgres

ANYBODY = Filter(frozenset({"a"}))


def opened(url: str, name: str = "c", **settings: object) -> PgvectorIndex:
    config = IndexConfig(store="pgvector", url=url, graph_from=100, exact_below=10, timeout_s=5, **settings)  # pyright: ignore
    return PgvectorIndex(url, name, config, DIMENSIONS)


def test_without_the_extension_it_says_what_to_do(postgres: Postgres) -> None:
    with pytest.raises(ConfigurationError, match="Install pgvector"):
        opened(postgres.create_database())


def test_nobody_answers() -> None:
    with pytest.raises(IndexUnavailable, match="PostgreSQL"):
        opened("postgresql://nobody@127.0.0.1:1/none")


@pytest.mark.parametrize("rest", ["h%zz@localhost/d", "h im@localhost/d"])
def test_a_url_that_is_none_is_told_without_its_password(rest: str) -> None:
    with pytest.raises(ConfigurationError, match=r"index\.url") as told:
        opened(f"postgresql://nobody:secret{rest}")
    assert "secret" not in str(told.value)


def test_collections_do_not_see_each_other(vector_database: str) -> None:
    names = ["A", "a", "a b", "a_b", 'quo"te', "", "x" * 200]
    assert len({schema_of(name) for name in names}) == len(names)
    indexes = [opened(vector_database, name) for name in names]
    for number, index in enumerate(indexes):
        index.upsert([passage(number)], vectors(1))
    for number, index in enumerate(indexes):
        assert [one.passage for one in index.search(Query("passage", None, ANYBODY))] == [passage(number)]
        index.close()


def test_two_that_write_the_same_leave_it_there_once(vector_database: str) -> None:
    """Four writers with connections of their own, the same new passages, at the same time."""
    indexes = [opened(vector_database, "shared") for _ in range(4)]
    passages, rows = [passage(number) for number in range(60)], vectors(60)
    together = threading.Barrier(4)
    failures: list[Exception] = []

    def write(index: PgvectorIndex) -> None:
        try:
            for _ in range(3):
                together.wait(30)
                index.upsert(passages, rows)
                index.remove("d3")
        except Exception as error:  # noqa: BLE001 - the test says which
            failures.append(error)

    threads = [start_thread(lambda index=index: write(index), name="test/writer") for index in indexes]
    for thread in threads:
        thread.join(60)
    assert failures == []
    assert indexes[0].size().passages == 50
    assert len(indexes[0].search(Query("passage", None, ANYBODY, keyword_depth=1000))) == 50
    with psycopg.connect(vector_database) as connection:
        path = schema_of("shared")
        row = connection.execute(
            f'SELECT count(*) FROM "{path}".words WHERE passage NOT IN (SELECT number FROM "{path}".passages)'.encode()
        ).fetchone()
        assert row == (0,)
    for index in indexes:
        index.close()


def test_half_a_graph_is_made_anew(vector_database: str) -> None:
    """As when the server was stopped while it was made."""
    index = opened(vector_database, "half")
    index.upsert([passage(number) for number in range(150)], vectors(150))
    assert index.optimise()
    assert index.size().indexed == 150
    with psycopg.connect(vector_database, autocommit=True) as connection:
        name = f"{schema_of('half')}.passages_graph"
        connection.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = %s::regclass", [name])
    assert index.size().indexed == 0
    assert len(index.search(Query("", vectors(1)[0], ANYBODY, vector_depth=20))) == 20
    assert index.optimise()
    assert index.size().indexed == 150
    assert not index.optimise()
    index.close()


def test_connections_that_were_cut_are_replaced(vector_database: str) -> None:
    index = opened(vector_database, "cut")
    index.upsert([passage(1)], vectors(1))
    with psycopg.connect(vector_database, autocommit=True) as connection:
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
    assert len(index.search(Query("passage", None, ANYBODY))) == 1
    index.close()
    with pytest.raises(IndexUnavailable, match="closed"):
        index.size()


@pytest.mark.parametrize("quantisation", ["int8", "none"])
def test_a_graph_is_used(vector_database: str, quantisation: str) -> None:
    index = opened(vector_database, f"graph {quantisation}", quantisation=quantisation)
    rows = vectors(1200)
    index.upsert([passage(number) for number in range(1200)], rows)
    index.optimise()
    with psycopg.connect(vector_database, autocommit=True) as connection:
        name = f"{schema_of(f'graph {quantisation}')}.passages_graph"
        before = connection.execute("SELECT idx_scan FROM pg_stat_all_indexes WHERE indexrelid = %s::regclass", [name])
        assert before.fetchone() == (0,)
    with index._connection() as connection:
        connection.execute("SET enable_seqscan = off")  # so few passages PostgreSQL would rather compare with all
    found = index.search(Query("", rows[7], ANYBODY, vector_depth=5))
    assert max(found, key=lambda one: one.vector_score or 0).passage == passage(7)
    with index._connection() as connection:
        plan = "EXPLAIN SELECT 1 FROM passages ORDER BY meaning::{0}({1}) <=> %s::{0} LIMIT 5"
        kind = "halfvec" if quantisation == "int8" else "vector"
        lines = connection.execute(plan.format(kind, DIMENSIONS).encode(), [str(rows[7].tolist())]).fetchall()
        assert any("passages_graph" in line for (line,) in lines)
    index.close()
