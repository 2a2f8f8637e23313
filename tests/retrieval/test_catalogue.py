"""The catalogue on both databases: what waits, who works on it, and what becomes of it when two things meet."""

from __future__ import annotations

import threading

import pytest

from parkway.core.tasks import start_thread
from parkway.retrieval.catalogue import Catalogue, Outcome, Partition, document_id
from parkway.retrieval.collections import Collections
from parkway.retrieval.config import CollectionConfig
from parkway.retrieval.ingest.source import Entry
from parkway.retrieval.listing import Listing
from parkway.store.sql import Database

ALL = Partition()


@pytest.fixture
def catalogue(database: Database) -> Catalogue:
    Collections(database).save({"docs": CollectionConfig()}, "api", 1)
    return Catalogue(database)


def entries(count: int, fingerprint: str = "1") -> list[Entry]:
    return [Entry(f"uri {number}", fingerprint) for number in range(count)]


def test_collections(database: Database) -> None:
    collections = Collections(database)
    collections.save({"docs": CollectionConfig()}, "api", 1)
    collections.save({"other": CollectionConfig.model_validate(["./a"])}, "config", 2)
    collections.save({"other": CollectionConfig.model_validate(["./a", "./b"])}, "config", 3)
    found = collections.all()
    assert list(found) == ["docs", "other"]
    assert [source.path for source in found["other"].config.sources] == ["./a", "./b"]
    assert collections.begin_removal("other", 4)
    assert not collections.begin_removal("none", 4)
    assert collections.all()["other"].removing
    assert [one.name for one in Listing(database).statuses()] == ["docs"]
    collections.forget("other")
    assert list(collections.all()) == ["docs"]
    assert Listing(database).statuses("other") == []


def test_new_changed_and_the_same(catalogue: Catalogue) -> None:
    found = catalogue.note("docs", "s", entries(3), 10, urgent=False)
    assert (found.new, found.changed, found.same) == (3, 0, 0)
    found = catalogue.note("docs", "s", [*entries(2), Entry("uri 2", "2"), Entry("uri 3", "1")], 11, urgent=False)
    assert (found.new, found.changed, found.same) == (1, 1, 2)
    assert catalogue.gone("docs", [document_id("docs", "s", "uri 0")], 12) == 1
    assert catalogue.gone("docs", [document_id("docs", "s", "uri 0")], 12) == 0
    found = catalogue.note("docs", "s", entries(1), 13, urgent=False)
    assert found.changed == 1, "it is there again"


def test_a_document_is_worked_on_by_one(catalogue: Catalogue) -> None:
    catalogue.note("docs", "s", entries(40), 10, urgent=False)
    taken: list[str] = []

    def claim() -> None:
        while found := catalogue.claim("docs", ALL, 3, 20, 100):
            taken.extend(one.document_id for one in found)

    threads = [start_thread(claim, name="test/claim") for _ in range(4)]
    for thread in threads:
        thread.join(30)
    assert len(taken) == len(set(taken)) == 40
    assert catalogue.claim("docs", ALL, 3, 119, 100) == []
    assert len(catalogue.claim("docs", ALL, 3, 120, 100)) == 3, "the lease is over"
    catalogue.release("docs", ALL)
    assert len(catalogue.claim("docs", ALL, 100, 120, 100)) == 40
    assert not any(one.is_alive() for one in threads)
    assert threading.active_count() > 0


def test_what_is_urgent_comes_first(catalogue: Catalogue) -> None:
    catalogue.note("docs", "s", entries(3), 10, urgent=False)
    catalogue.note("docs", "s", [Entry("now", "1")], 20, urgent=True)
    [first] = catalogue.claim("docs", ALL, 1, 30, 100)
    assert first.uri == "now"


def test_a_clock_that_is_set_back_makes_nobody_wait(catalogue: Catalogue) -> None:
    day_ms = 86_400_000
    catalogue.note("docs", "s", entries(1), 2 * day_ms, urgent=False)
    assert catalogue.claim("docs", ALL, 1, 2 * day_ms - 1, 100) == []
    assert len(catalogue.claim("docs", ALL, 1, day_ms, 100)) == 1


def test_a_change_while_it_is_worked_on_is_not_lost(catalogue: Catalogue, database: Database) -> None:
    catalogue.note("docs", "s", entries(1), 10, urgent=False)
    [document] = catalogue.claim("docs", ALL, 1, 20, 100)
    catalogue.note("docs", "s", entries(1, "2"), 21, urgent=False)
    assert catalogue.claim("docs", ALL, 1, 22, 100) == [], "somebody still works on it"
    catalogue.finish([Outcome(document, "indexed", version="a", passages=1)], 23)
    [again] = catalogue.claim("docs", ALL, 1, 24, 100)
    assert (again.version, again.state) == ("a", "waiting")
    catalogue.finish([Outcome(again, "indexed", version="b", passages=2)], 25)
    assert catalogue.claim("docs", ALL, 1, 26, 100) == []
    [status] = Listing(database).statuses("docs")
    assert (status.indexed, status.passages) == (1, 2)


def test_gone_and_there_again_while_it_is_being_removed(catalogue: Catalogue) -> None:
    catalogue.note("docs", "s", entries(2), 10, urgent=False)
    claimed = catalogue.claim("docs", ALL, 2, 20, 100)
    catalogue.finish([Outcome(one, "indexed", version="a", passages=1) for one in claimed], 21)
    catalogue.gone("docs", [one.document_id for one in claimed], 22)
    removing = catalogue.claim("docs", ALL, 2, 23, 100)
    assert [one.state for one in removing] == ["removing", "removing"]
    catalogue.note("docs", "s", entries(1), 24, urgent=False)
    catalogue.finish([Outcome(one, "removing") for one in removing], 25)
    [left] = catalogue.page("docs", ALL)
    assert (left.uri, left.state, left.version) == ("uri 0", "waiting", "")


def test_partitions_have_every_document_once(catalogue: Catalogue) -> None:
    catalogue.note("docs", "s", entries(60), 10, urgent=False)
    shares = [catalogue.page("docs", Partition(number, 3)) for number in range(3)]
    assert all(shares)
    assert sum(len(share) for share in shares) == 60
    assert all(Partition(1, 3).has(one.document_id) for one in shares[1])


def test_text_of_any_kind_is_kept(catalogue: Catalogue) -> None:
    strange = Entry(
        "日本\n'\"%_", "1", title="nul\0 here", metadata={"k": ["ü", "\n"], "n": 1.5, "b": True}, access=("*",)
    )
    catalogue.note("docs", "s", [strange], 10, urgent=False)
    [document] = catalogue.claim("docs", ALL, 1, 20, 100)
    assert (document.uri, document.title, document.access) == (strange.uri, "nul here", ("*",))
    assert document.metadata == strange.metadata
    found = catalogue.note("docs", "s", [strange], 11, urgent=False)
    assert found.same == 1


def test_what_is_below_a_path(catalogue: Catalogue) -> None:
    names = ["a/b", "a/b/c", "a/bc", "a/b%", "A/b"]
    catalogue.note("docs", "s", [Entry(name, "1") for name in names], 10, urgent=False)
    assert [uri for _, uri in catalogue.below("docs", "s", "a/b")] == ["a/b/c"]
    assert [uri for _, uri in catalogue.below("docs", "s", "")] == ["A/b", "a/b", "a/b%", "a/b/c", "a/bc"]
    assert [uri for _, uri in catalogue.below("docs", "s", "a", "a/b%")] == ["a/b/c", "a/bc"]
