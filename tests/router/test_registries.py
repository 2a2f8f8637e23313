"""What every registry promises, on the store and on a real etcd."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator

import pytest

from parkway.core.errors import InvalidRequest
from parkway.router.config import RegistryConfig
from parkway.router.endpoint import Endpoint
from parkway.router.etcd_registry import EtcdRegistry
from parkway.router.registry import EndpointRegistry, Registry
from parkway.store.sql import Database
from tests.router.test_registry import endpoint

Open = Callable[[str], EndpointRegistry]
"""A registry as the publisher of this name sees it; all are the same registry."""

_prefixes = itertools.count()


@pytest.fixture(params=["sqlite", "postgres", "etcd"])
def open_registry(request: pytest.FixtureRequest, tmp_path: object) -> Iterator[Open]:
    if request.param == "etcd":
        server = request.getfixturevalue("etcd")
        config = RegistryConfig(etcd=[server.url], prefix=f"/suite-{next(_prefixes)}", lease_s=5)
        opened: list[EndpointRegistry] = []

        def open_etcd(publisher: str) -> EndpointRegistry:
            opened.append(EtcdRegistry(config, publisher))
            return opened[-1]

        yield open_etcd
        for each in opened:
            each.close()
        return
    url = f"sqlite:///{tmp_path}/p.db"
    if request.param == "postgres":
        url = request.getfixturevalue("postgres").create_database()
    database = Database.open(url)
    database.migrate()
    yield lambda publisher: Registry(database, publisher=publisher)
    database.close()


def ids(found: list[Endpoint]) -> list[str]:
    return [each.endpoint_id for each in found]


def test_what_is_put_is_listed_as_it_was(open_registry: Open) -> None:
    registry = open_registry("aa")
    full = endpoint("e/2 ~", url="http://h:2/v1", weight=7, state="draining", api_key_env="KEY", source="api")
    registry.put(full)
    registry.put(endpoint("e1", model="a"))
    assert registry.list() == [endpoint("e1", model="a"), full]
    assert registry.remove("e/2 ~")
    assert registry.remove("e1")
    assert not registry.remove("e1")
    assert registry.list() == []


def test_replace_changes_one_source_only(open_registry: Open) -> None:
    registry = open_registry("aa")
    registry.replace("local", [endpoint("local-1")])
    registry.replace("config", [endpoint("a"), endpoint("b")])
    registry.replace("config", [endpoint("b", weight=3), endpoint("c")])
    assert registry.list() == [endpoint("b", weight=3), endpoint("c"), endpoint("local-1", source="local")]
    registry.replace("config", [endpoint("local-1")])
    assert registry.list() == [endpoint("local-1")], "an id passes from one source to another"


def test_replace_refuses_an_id_given_twice_and_changes_nothing(open_registry: Open) -> None:
    registry = open_registry("aa")
    registry.replace("config", [endpoint("a")])
    with pytest.raises(InvalidRequest, match="given twice: b"):
        registry.replace("config", [endpoint("b"), endpoint("b")])
    assert registry.list() == [endpoint("a")]


def test_publishers_do_not_overwrite_one_another(open_registry: Open) -> None:
    one, two = open_registry("aa"), open_registry("bb")
    one.replace("config", [endpoint("m@0", url="http://one:1/v1"), endpoint("m@1", url="http://both:1/v1")])
    two.replace("config", [endpoint("m@0", url="http://two:1/v1"), endpoint("m@1", url="http://both:1/v1")])
    two.replace("local", [endpoint("m#0", url="http://127.0.0.1:5/v1")])
    assert ids(one.list()) == ["m@0", "m@0~bb", "m@1"], "engines of others are theirs; one server counts once"
    assert ids(two.list()) == ["m#0", "m@0", "m@0~aa", "m@1"]
    one.replace("config", [])
    assert ids(two.list()) == ["m#0", "m@0", "m@1"]


def test_writers_at_once_lose_nothing(open_registry: Open) -> None:
    registries = [open_registry(name) for name in ("aa", "bb", "cc")]

    def write(registry: EndpointRegistry, name: str) -> None:
        for weight in range(1, 4):
            registry.replace("config", [endpoint(name, url=f"http://{name}:1/v1", weight=weight)])

    threads = [threading.Thread(target=write, args=pair) for pair in zip(registries, "xyz", strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [each.weight for each in registries[0].list()] == [3, 3, 3]
