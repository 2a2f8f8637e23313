"""Which engines the configuration asks for, and what the registry is told about them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest

from parkway.core.errors import ConfigurationError, StartupError
from parkway.launch.child import Child
from parkway.launch.engines import Engines
from parkway.launch.family import Family
from parkway.launch.publication import Publication
from parkway.launch.settings import Settings
from parkway.router.endpoint import Endpoint
from parkway.store.home import Home


class Board:
    """Engines that were never started, and what is published about them."""

    def __init__(self, folder: Path, models: dict[str, object]) -> None:
        settings = Settings.model_validate({"models": models})
        self._publication = Publication(print)
        self.engines = Engines(
            settings, Family(settings, Home.open(folder), {}, print), self._publication, "token", print
        )

    def published(self) -> list[Endpoint]:
        found: list[Endpoint] = []

        def write(endpoints: Sequence[Endpoint]) -> None:
            found[:] = endpoints

        self._publication.start(write)
        return list(found)

    def become(self, number: int, state: str, address: str = "") -> Child:
        child = self.engines.children[number]
        child._become(state, address)  # pyright: ignore
        return child


def test_an_engine_for_each_replica_of_each_directory(tmp_path: Path) -> None:
    board = Board(
        tmp_path,
        {"one": "./one", "far": "http://h", "many": {"endpoints": [{"path": "./a", "replicas": 2}, "http://h", "./b"]}},
    )
    names = [child.program.name for child in board.engines.children]
    assert names == ["engine one", "engine many", "engine many#1", "engine many#2"]
    assert [child.program.argv[child.program.argv.index("--model") + 1] for child in board.engines.children] == [
        "./one", "./a", "./a", "./b",
    ]  # fmt: skip


def test_the_state_of_each_engine_is_published(tmp_path: Path) -> None:
    board = Board(tmp_path, {"waits": "./a", "serves": "./b", "never": "./c"})
    board.become(0, "starting")
    board.become(1, "ready", "http://127.0.0.1:7")
    board.become(2, "given up")
    states = {endpoint.model: (endpoint.state, endpoint.url) for endpoint in board.published()}
    assert states == {
        "waits": ("down", "http://not-started.invalid/v1"),
        "serves": ("ready", "http://127.0.0.1:7/v1"),
    }


def test_an_adapter_is_published_as_a_model_of_the_same_engine(tmp_path: Path) -> None:
    places = [{"path": "./a", "weight": 3, "adapters": {"legal": "/l", "style": "/s"}}, {"path": "./b"}]
    board = Board(tmp_path, {"m": {"endpoints": places}})
    first, second = (child.program.argv for child in board.engines.children)
    given = [value for option, value in pairwise(first) if option == "--adapter"]
    assert given == ["legal=/l", "style=/s"]
    assert "--adapter" not in second
    board.become(0, "ready", "http://127.0.0.1:7")
    endpoints = {endpoint.endpoint_id: endpoint for endpoint in board.published()}
    assert sorted(endpoints) == ["m#0", "m#1", "m:legal#0", "m:style#0"]
    adapted = endpoints["m:legal#0"]
    assert (adapted.model, adapted.upstream_model, adapted.url) == ("m:legal", "m:legal", "http://127.0.0.1:7/v1")
    assert (adapted.state, adapted.weight, adapted.source) == ("ready", 3, "local")
    board.become(0, "waiting")
    assert {endpoint.state for endpoint in board.published()} == {"down"}
    board.become(0, "given up")
    assert [endpoint.endpoint_id for endpoint in board.published()] == ["m#1"]


def test_readiness_waits_for_all_but_what_is_given_up(tmp_path: Path) -> None:
    board = Board(tmp_path, {"a": "./a", "b": "./b"})
    reasons = ['model "a" has no endpoint yet', 'model "b" has no endpoint yet']
    assert board.engines.waits_for(reasons)
    board.become(0, "given up")
    assert board.engines.waits_for(reasons)
    assert not board.engines.waits_for(reasons[:1])
    assert not board.engines.waits_for([])
    assert board.engines.waits_for(["draining"])


def test_one_replica_left_is_enough_to_hope(tmp_path: Path) -> None:
    board = Board(tmp_path, {"a": {"path": "./a", "replicas": 2}})
    board.become(0, "given up")
    board.engines.check_any_left()
    board.become(1, "given up").reason = "no config.json"
    with pytest.raises(StartupError, match=r"no model can be served\na: \na: no config\.json"):
        board.engines.check_any_left()


def test_a_model_elsewhere_is_something_to_serve(tmp_path: Path) -> None:
    board = Board(tmp_path, {"a": "./a", "far": "http://h"})
    board.become(0, "given up")
    board.engines.check_any_left()


def test_a_model_on_demand_has_no_engine_at_the_start_and_is_something_to_serve(tmp_path: Path) -> None:
    board = Board(tmp_path, {"a": "./a", "later": {"path": "./b", "load": "on_demand"}})
    assert [child.program.name for child in board.engines.children] == ["engine a"]
    board.become(0, "given up")
    board.engines.check_any_left()


def test_models_that_are_too_large_together_are_refused_with_the_numbers(tmp_path: Path) -> None:
    board = Board(tmp_path, {"one": "park-embed", "two": "park-embed", "unreadable": "./nowhere"})
    board.engines.check_fit(800_000_000)
    with pytest.raises(ConfigurationError, match=r"need 782 MB without their caches, and may use 700 MB") as caught:
        board.engines.check_fit(700_000_000)
    assert "`load: on_demand`" in caught.value.message
    assert "two 391 MB (weights 90.9 MB" in caught.value.message
    with pytest.raises(ConfigurationError, match="caches, beside 300 MB for documents, and may use 800 MB"):
        board.engines.check_fit(800_000_000, 300_000_000)
    Board(tmp_path / "other", {}).engines.check_fit(100_000_000, 300_000_000)


async def test_what_is_shown_of_engines(tmp_path: Path) -> None:
    board = Board(tmp_path, {"a": "./a", "b": "./b"})
    board.become(1, "given up").reason = "no config.json"
    shown = [(state.name, state.state, state.load, state.reason) for state in await board.engines.states()]
    assert shown == [("a", "loading", "start", None), ("b", "given up", "start", "no config.json")]
