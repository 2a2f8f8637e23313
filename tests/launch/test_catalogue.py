"""Which models are loaded on demand: those of the configuration, and whatever is pulled and removed meanwhile."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from parkway.core.tasks import Tasks
from parkway.engine.config import EngineConfig
from parkway.launch.catalogue import Catalogue
from parkway.launch.family import Family
from parkway.launch.on_demand import OnDemand
from parkway.launch.publication import Publication
from parkway.launch.settings import Settings
from parkway.store.home import Home
from parkway.store.models import Manifest, PulledModels


class Shelf:
    """A catalogue over a home, and what it said."""

    def __init__(self, folder: Path, tasks: Tasks) -> None:
        self.home = Home.open(folder / "home")
        self.said: list[str] = []
        models = {
            "park-mini": "park-mini",
            "named": {"path": "./named", "load": "on_demand", "keep_alive_s": 7},
            "adapted": {"path": "./adapted", "load": "on_demand", "adapters": {"legal": "/adapters/legal"}},
            "alias": str(PulledModels(self.home).folder / "aliased"),
        }
        settings = Settings.model_validate({"models": models})
        publication = Publication(print)
        family = Family(settings, self.home, {}, print)
        self.models = OnDemand(1 << 40, lambda: 0, 1.0, publication, tasks, print)
        self.catalogue = Catalogue(settings, self.home, family, publication, self.models, "t", self.said.append)

    def pull(self, name: str, commit: str = "a") -> None:
        manifest = Manifest(source="a/b", revision="main", commit=commit, endpoint="https://h", pulled_ms=1, files=[])
        with PulledModels(self.home).pulling(name) as partial:
            partial.finish(manifest)


@pytest.fixture
async def shelf(tmp_path: Path) -> AsyncIterator[Shelf]:
    async with Tasks("test") as tasks:
        yield Shelf(tmp_path, tasks)


async def test_the_configuration_says_which_and_for_how_long(shelf: Shelf) -> None:
    assert shelf.models.names() == ["named", "adapted"]
    assert shelf.models._sleepers["named"].keep_alive_s == 7  # pyright: ignore


async def test_what_is_pulled_appears_and_what_is_removed_disappears(shelf: Shelf) -> None:
    await shelf.catalogue.follow()
    shelf.pull("helper")
    await shelf.catalogue.follow()
    assert shelf.models.names() == ["named", "adapted", "helper"]
    PulledModels(shelf.home).remove("helper")
    await shelf.catalogue.follow()
    assert shelf.models._sleepers["helper"].dismissed  # pyright: ignore
    assert shelf.said == ["helper was pulled and can be used", "helper is gone"]


async def test_what_the_configuration_names_is_not_served_twice(shelf: Shelf) -> None:
    for name in ("park-mini", "named", "aliased", "adapted:legal"):
        shelf.pull(name)
    shelf.catalogue.adopt_pulled()
    assert shelf.models.names() == ["named", "adapted"]


async def test_another_commit_is_news(shelf: Shelf) -> None:
    shelf.pull("helper")
    shelf.catalogue.adopt_pulled()
    assert not shelf.models._sleepers["helper"].outdated  # pyright: ignore
    shelf.pull("helper", commit="b")
    await shelf.catalogue.follow()
    assert shelf.models._sleepers["helper"].outdated  # pyright: ignore


async def test_the_engine_of_a_pulled_model_is_given_its_name_and_directory(shelf: Shelf) -> None:
    child = shelf.catalogue._start("helper", "/models/helper", EngineConfig(), {}, lambda *_: None)  # pyright: ignore
    argv = child.program.argv
    assert argv[argv.index("--model") + 1] == "/models/helper"
    assert argv[argv.index("--name") + 1] == "helper"
    assert "--adapter" not in argv
    assert "--set" not in argv


async def test_an_engine_that_is_loaded_on_demand_is_given_its_settings(shelf: Shelf) -> None:
    config = EngineConfig(quantization="int8", max_sequences=3)
    child = shelf.catalogue._start("helper", "/models/helper", config, {}, lambda *_: None)  # pyright: ignore
    given = [value for flag, value in itertools.pairwise(child.program.argv) if flag == "--set"]
    assert sorted(given) == ["max_sequences=3", "quantization=int8"]


async def test_the_engine_of_a_model_with_adapters_is_given_them(shelf: Shelf) -> None:
    sleeper = shelf.models._sleepers["adapted"]  # pyright: ignore
    assert sleeper.models == ["adapted", "adapted:legal"]
    child = sleeper._start("adapted", "./adapted", sleeper._config, sleeper._adapters, lambda *_: None)  # pyright: ignore
    assert child.program.argv[child.program.argv.index("--adapter") + 1] == "legal=/adapters/legal"
