"""A replica finds what its owner finds, a moment later: over changes, new generations, and a journal that was cut."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from parkway.core.errors import IndexUnavailable
from parkway.retrieval.index import edge as edge_module
from parkway.retrieval.index.config import IndexConfig
from parkway.retrieval.index.edge import EdgeIndex
from parkway.retrieval.index.index import Filter, Query
from parkway.retrieval.index.replica import ReplicaIndex, lags_s
from tests.retrieval.index.corpus import DIMENSIONS, passage, vectors

CONFIG = IndexConfig(graph_from=50, build_threads=1, build_niceness=0)
ANYBODY = Filter(frozenset({"a"}))


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[EdgeIndex]:
    index = EdgeIndex(tmp_path / "index", CONFIG, DIMENSIONS)
    index.upsert([passage(number) for number in range(100)], vectors(100))
    yield index
    index.close()


@pytest.fixture
def replica(owner: EdgeIndex) -> Iterator[ReplicaIndex]:
    index = replica_of(owner)
    yield index
    index.close()


def replica_of(owner: EdgeIndex, number: int = 1, max_lag_s: float = 60.0) -> ReplicaIndex:
    return ReplicaIndex(owner.directory, number, CONFIG, DIMENSIONS, owner.copy, max_lag_s)


def wait(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def finds(index: ReplicaIndex, number: int) -> bool:
    with suppress(IndexUnavailable):
        found = index.search(Query(f"w{number}", None, ANYBODY))
        return [one.passage for one in found] == [passage(number)]
    return False


def same(replica: ReplicaIndex, owner: EdgeIndex) -> bool:
    return replica.documents() == owner.documents()


def test_it_follows_what_its_owner_does(owner: EdgeIndex, replica: ReplicaIndex) -> None:
    wait(lambda: finds(replica, 7), "what was there")
    owner.upsert([passage(200)], vectors(1))
    owner.remove("d3")
    wait(lambda: finds(replica, 200), "what is new")
    wait(lambda: same(replica, owner), "the end of what was removed")
    assert not finds(replica, 35)
    owner._checkpoint()
    owner.upsert([passage(300)], vectors(1))
    wait(lambda: finds(replica, 300), "what stands in the next file of the journal")
    assert replica.vectors([passage(200).content]).keys() == {passage(200).content}
    assert replica.passages("d1") == owner.passages("d1")


def test_it_learns_that_not_everybody_may_see_everything(owner: EdgeIndex, replica: ReplicaIndex) -> None:
    assert replica._open
    owner.upsert([passage(800, access=("user:ann",))], vectors(1))
    wait(lambda: "d80" in replica.documents(), "what is new")
    assert not replica._open
    assert not finds(replica, 800)
    assert [
        one.passage.document_id for one in replica.search(Query("w800", None, Filter(frozenset({"user:ann"}))))
    ] == ["d80"]


def test_it_gets_a_copy_of_the_next_generation(owner: EdgeIndex, replica: ReplicaIndex) -> None:
    owner.remove("d3")
    before = replica._generation.directory
    assert owner.optimise()
    owner.upsert([passage(400)], vectors(1))
    wait(lambda: replica._generation.directory != before, "the copy")
    wait(lambda: finds(replica, 400), "what came after it")
    assert replica._generation.built == owner._generation.built
    owner._checkpoint()
    wait(lambda: owner.size().passages > 0 and len(owner._journal.numbers()) == 1, "the end of what the journal said")
    wait(lambda: not before.exists(), "the end of the one before")
    assert same(replica, owner)


def test_the_journal_waits_for_those_who_live(owner: EdgeIndex, replica: ReplicaIndex) -> None:
    wait(lambda: lags_s(owner.directory).keys() == {1}, "the replica")
    with replica._following:
        owner._checkpoint()
        first = owner._journal.numbers()[0]
        for number in range(3):
            owner.upsert([passage(500 + number)], vectors(1))
            owner._checkpoint()
        assert owner._journal.numbers()[0] == first
    wait(lambda: finds(replica, 502), "all of it")
    replica.close()
    owner._checkpoint()
    assert owner._journal.numbers() == [owner._journal.number]
    assert lags_s(owner.directory) == {}


def test_one_that_was_left_behind_gets_a_new_copy(
    owner: EdgeIndex, replica: ReplicaIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge_module, "MAX_HELD_BYTES", 0)
    with replica._following:
        owner.upsert([passage(600)], vectors(1))
        owner._checkpoint()
        owner._checkpoint()
    wait(lambda: finds(replica, 600), "what it could not read")


def test_one_that_is_too_far_behind_does_not_answer(owner: EdgeIndex) -> None:
    replica = replica_of(owner, 2, max_lag_s=0.3)
    wait(lambda: finds(replica, 7), "what was there")
    with replica._following:
        wait(lambda: replica.lag_s > 0.3, "a while")
        with pytest.raises(IndexUnavailable, match="s behind its owner"):
            replica.search(Query("w7", None, ANYBODY))
    wait(lambda: finds(replica, 7), "it has caught up")
    with pytest.raises(IndexUnavailable, match="belongs to another process"):
        replica_of(owner, 2)
    replica.close()


def test_it_knows_that_its_index_was_erased(owner: EdgeIndex, replica: ReplicaIndex) -> None:
    assert not replica.erased
    owner.close()
    shutil.rmtree(owner.directory)
    assert replica.erased


def test_an_owner_that_is_opened_again_carries_out_nothing_that_is_on_disk(
    owner: EdgeIndex, replica: ReplicaIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    with replica._following:
        owner.upsert([passage(700)], vectors(1))
        owner.close()
        assert len(owner._journal.numbers()) > 1
        monkeypatch.setattr(edge_module, "apply", lambda *_: pytest.fail("it was carried out again"))
        again = EdgeIndex(owner.directory, CONFIG, DIMENSIONS)
        assert again.size().passages == 101
        again.close()


def test_a_copy_that_comes_for_one_that_was_killed_does_not_stay(owner: EdgeIndex, replica: ReplicaIndex) -> None:
    late = owner.directory / "replicas/1/generation-000000000000"
    assert owner.copy(late).generation
    wait(lambda: not late.exists(), "what nobody reads would have what is removed later")
    assert finds(replica, 7)
