"""What the registry is told about local engines: the latest state, in the end, whatever the store does."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

from parkway.core.errors import StoreUnavailable
from parkway.launch.publication import Publication
from parkway.router.endpoint import Endpoint


def _endpoint(name: str, state: str = "ready") -> Endpoint:
    return Endpoint(endpoint_id=name, model="m", url="http://h/v1", upstream_model="m", state=state)  # pyright: ignore


class Store:
    """Keeps what was written last, and fails as long as it is told to."""

    def __init__(self) -> None:
        self.endpoints: list[str] | None = None
        self.history: list[list[str]] = []
        self.away = threading.Event()
        self.tried = threading.Semaphore(0)

    def write(self, endpoints: Sequence[Endpoint]) -> None:
        self.tried.release()
        if self.away.is_set():
            raise StoreUnavailable("the store is away")
        self.endpoints = [f"{endpoint.endpoint_id} {endpoint.state}" for endpoint in endpoints]
        self.history.append(self.endpoints)


def test_the_first_write_has_all_that_came_before_it() -> None:
    store, publication = Store(), Publication(print)
    publication.put(_endpoint("a"))
    publication.put(_endpoint("b", "down"))
    publication.start(store.write)
    assert store.endpoints == ["a ready", "b down"]
    publication.close()


def test_changes_are_written_and_closing_takes_all_back() -> None:
    store, publication = Store(), Publication(print)
    publication.start(store.write)
    assert store.tried.acquire(timeout=30)
    publication.put(_endpoint("a"))
    assert store.tried.acquire(timeout=30)
    publication.close(timeout_s=30)
    assert store.endpoints == []


def test_several_are_written_in_one_step() -> None:
    store, publication = Store(), Publication(print)
    publication.start(store.write)
    assert store.tried.acquire(timeout=30)
    publication.put(_endpoint("a"), _endpoint("b"))
    assert store.tried.acquire(timeout=30)
    publication.put(_endpoint("a"), _endpoint("b"))  # nothing new: nothing is written
    publication.remove("a", "c")
    assert store.tried.acquire(timeout=30)
    publication.close(timeout_s=30)
    assert store.history == [[], ["a ready", "b ready"], ["b ready"], []]


def test_a_store_that_is_away_is_told_once_and_gets_the_latest_when_it_is_back() -> None:
    told: list[str] = []
    store, publication = Store(), Publication(told.append, retry_s=0.01)
    publication.start(store.write)
    store.away.set()
    publication.put(_endpoint("a"))
    for _ in range(5):
        assert store.tried.acquire(timeout=30)
    publication.put(_endpoint("a", "down"))
    publication.put(_endpoint("b"))
    store.away.clear()
    while store.endpoints != ["a down", "b ready"]:
        assert store.tried.acquire(timeout=30)
    publication.close(timeout_s=30)
    assert [line.partition(",")[0] for line in told] == [
        "the state of the engines cannot be stored",
        "the state of the engines is stored again",
    ]


def test_a_store_that_is_away_at_the_start_is_an_error() -> None:
    store, publication = Store(), Publication(print)
    store.away.set()
    with pytest.raises(StoreUnavailable):
        publication.start(store.write)
