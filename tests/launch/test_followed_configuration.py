"""A changed configuration is taken whole or not at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from parkway.core.errors import ConfigurationError
from parkway.launch.reload import HOSTS, Commit, Outcome, Reload, Source, Watcher, changes
from parkway.launch.settings import Settings


def settings(**sections: Any) -> Settings:
    return Settings.model_validate({"models": {}, **sections})


class Part:
    """Notes what it was given."""

    def __init__(self) -> None:
        self.prepared: list[Settings] = []
        self.committed: list[Settings] = []
        self.refuses = False

    def prepare(self, new: Settings) -> Commit:
        self.prepared.append(new)
        if self.refuses:
            raise ConfigurationError("not with me")
        return lambda: self.committed.append(new)


@pytest.mark.parametrize(
    ("old", "new", "keys"),
    [
        ({}, {}, []),
        ({}, {"limits": {"burst": 1000}}, []),
        ({}, {"limits": {"burst": 7, "rate_per_s": 3}}, ["limits.rate_per_s", "limits.burst"]),
        ({}, {"start_timeout_s": 3}, ["start_timeout_s"]),
        ({}, {"knowledge": {"docs": "./docs"}}, ["knowledge"]),
        ({"knowledge": {"docs": "./docs"}}, {"knowledge": {"docs": {"sources": ["./docs"]}}}, []),
        (
            {"knowledge": {"docs": "./docs", "a": "./a"}},
            {"knowledge": {"docs": {"sources": ["./b"], "index": {"language": "german"}}}},
            ["knowledge", "knowledge.docs.sources", "knowledge.docs.index.language"],
        ),
        ({}, {"models": {"a": "http://a"}}, ["models.a.url"]),
        ({"models": {"a": "http://a"}}, {"models": {"a": "http://b"}}, ["models.a.url"]),
        ({"models": {"a": "http://a"}}, {"models": {"a": {"url": "http://a", "weight": 3}}}, ["models.a.url"]),
        (
            {},
            {"models": {"a": {"url": "http://a", "max_concurrency": 3}}},
            ["models.a.url", "models.a.max_concurrency"],
        ),
        (
            {"models": {"a": "http://a"}},
            {"models": {"a": {"url": "http://a", "accepts": {"max_prompt_tokens": 3}, "balance": "latency_aware"}}},
            ["models.a.accepts", "models.a.balance"],
        ),
        ({"models": {"a": "http://a"}}, {"models": {"a": "./a"}}, ["models.a.url", "models.a.path"]),
        ({"models": {"a": "./a"}}, {"models": {"a": {"path": "./a", "replicas": 2}}}, ["models.a.path"]),
        ({}, {"models": {"a": {"path": "./a", "load": "on_demand"}}}, ["models.a.path", "models.a.load"]),
        (
            {"models": {"a": {"endpoints": ["http://a", "./a"]}}},
            {"models": {"a": {"endpoints": ["./a", "http://b"]}}},
            ["models.a.url"],
        ),
    ],
)
def test_what_has_changed_is_named(old: dict[str, Any], new: dict[str, Any], keys: list[str]) -> None:
    assert list(changes(settings(**old), settings(**new))) == keys


async def test_parts_get_what_concerns_them_and_the_rest_has_to_wait() -> None:
    limits, hosts, file = Part(), Part(), Part()
    reload = Reload(settings())
    reload.register(limits.prepare, "limits", "router.max_attempts")
    reload.register(hosts.prepare, HOSTS)
    reload.register(file.prepare, files=lambda _: [Path("x")])
    new = settings(router={"max_attempts": 1, "dns_ttl_s": 1}, models={"a.b": "http://a"})
    outcome = await reload.take(new)
    assert outcome == Outcome(
        changed=("router.max_attempts", "router.dns_ttl_s", "models.a.b.url"), pending=("router.dns_ttl_s",)
    )
    assert limits.committed == hosts.committed == file.committed == [new]
    assert (await reload.take(new)).changed == ()
    assert len(limits.prepared) == 1
    assert len(file.prepared) == 2  # its file may be another one


async def test_one_that_cannot_leaves_all_as_they_were() -> None:
    before = settings()
    one, other = Part(), Part()
    other.refuses = True
    reload = Reload(before)
    reload.register(one.prepare, "limits")
    reload.register(other.prepare, "limits")
    with pytest.raises(ConfigurationError, match="not with me"):
        await reload.take(settings(limits={"burst": 3}))
    assert one.prepared
    assert one.committed == other.committed == []
    assert reload.settings is before


class Looks:
    """A watcher of a file, which a test has look."""

    def __init__(self, path: Path, started: Settings | None = None) -> None:
        self.path = path
        self.told: list[Outcome] = []
        self.part = Part()
        self.reading: Callable[[], None] = lambda: None
        reload = Reload(started or settings())
        reload.register(self.part.prepare, "limits")
        self.watcher = Watcher(reload, Source(path, self._read), self.told.append)

    def _read(self, new: Settings) -> Settings:
        self.reading()
        return new

    async def times(self, count: int) -> None:
        for _ in range(count):
            await self.watcher.look()


def write(path: Path, text: str) -> None:
    path.write_text(text)


def remove(path: Path) -> None:
    path.unlink()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "parkway.yaml"


async def test_a_file_is_read_when_it_no_longer_changes(path: Path) -> None:
    write(path, "models: {}")
    looks = Looks(path)
    await looks.times(3)
    assert looks.told == []
    write(path, "models: {}\nlimits: {burst: 10")
    await looks.times(1)
    write(path, "models: {}\nlimits: {burst: 1000000}")
    await looks.times(1)
    assert looks.part.prepared == []
    await looks.times(1)
    assert [new.limits.burst for new in looks.part.committed] == [1_000_000]
    await looks.times(3)
    assert len(looks.told) == 1


async def test_a_file_that_changes_while_it_is_read_is_read_again(path: Path) -> None:
    write(path, "models: {}\nlimits: {burst: 3}")
    looks = Looks(path)
    looks.reading = lambda: write(path, "models: {}\nlimits: {burst: 44}")
    await looks.times(2)
    assert looks.part.committed == []
    looks.reading = lambda: None
    await looks.times(3)
    assert [new.limits.burst for new in looks.part.committed] == [44]


async def test_a_fault_that_comes_while_the_file_is_read_is_told_once(path: Path) -> None:
    def change() -> None:
        write(path, "models: {}\nlimits: 7")
        raise ConfigurationError("read in the middle of a change")

    write(path, "models: {}\nlimits: {burst: 3}")
    looks = Looks(path)
    looks.reading = change
    await looks.times(2)
    assert looks.told == []
    looks.reading = lambda: None
    await looks.times(4)
    assert ["limits" in str(outcome.error) for outcome in looks.told] == [True]


async def test_a_fault_is_told_once_and_its_end_too(path: Path) -> None:
    write(path, "models: {}")
    looks = Looks(path)
    await looks.times(2)
    write(path, "limits: 7")
    await looks.times(5)
    write(path, "models: {}")
    await looks.times(5)
    assert [outcome.error is None for outcome in looks.told] == [False, True]
    assert looks.part.committed == []


async def test_no_file_is_no_fault_until_there_was_one(path: Path) -> None:
    looks = Looks(path)
    await looks.times(3)
    assert looks.told == []
    write(path, "models: {}\nlimits: {burst: 3}")
    await looks.times(2)
    remove(path)
    await looks.times(3)
    assert [outcome.error is None for outcome in looks.told] == [True, False]
    assert "cannot be read" in str(looks.told[1].error)
