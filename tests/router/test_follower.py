"""What the router knows while etcd changes, is away, comes back, and comes back empty."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from parkway.core.tasks import Tasks
from parkway.router.config import RegistryConfig
from parkway.router.etcd_registry import EtcdRegistry
from parkway.router.follower import Follower
from parkway.router.view import View
from parkway.store.etcd import Etcd
from tests import servers
from tests.router.conftest import until
from tests.router.test_registry import endpoint

_prefixes = itertools.count()


@pytest.fixture
def own_etcd() -> Iterator[servers.Etcd]:
    """An etcd that a test may stop."""
    try:
        server = servers.Etcd()
    except servers.Missing as error:
        pytest.skip(f"needs etcd: {error}")
    yield server
    server.close()


def configured(server: servers.Etcd, **changes: object) -> RegistryConfig:
    prefix = f"/follower-{next(_prefixes)}"
    return RegistryConfig.model_validate({"etcd": [server.url], "prefix": prefix, "lease_s": 2, **changes})


@asynccontextmanager
async def following(
    config: RegistryConfig, publisher: str = "", kept: Path | None = None
) -> AsyncIterator[tuple[View, Follower]]:
    view = View()
    follower = Follower(config, publisher, view.load, kept)
    async with Tasks("test") as tasks:
        await follower.start()
        tasks.start(follower.run(), name="follow")
        yield view, follower
    await follower.close()


@pytest.fixture
def publish() -> Iterator[Callable[..., EtcdRegistry]]:
    opened: list[EtcdRegistry] = []

    def start(config: RegistryConfig, publisher: str = "aa") -> EtcdRegistry:
        opened.append(EtcdRegistry(config, publisher))
        return opened[-1]

    yield start
    for each in opened:
        each.close()


async def test_changes_arrive(etcd: servers.Etcd, publish: Callable[..., EtcdRegistry]) -> None:
    config = configured(etcd)
    registry = publish(config)
    async with following(config) as (view, follower):
        assert follower.connected
        await asyncio.to_thread(registry.replace, "config", [endpoint("e1", model="a"), endpoint("e2", model="b")])
        await until(lambda: view.models() == ["a", "b"])
        await asyncio.to_thread(registry.replace, "config", [endpoint("e2", model="b", state="down")])
        await until(lambda: view.models() == ["b"] and view.endpoints("b")[0].state == "down")


async def test_a_publisher_that_dies_takes_its_endpoints_with_it(etcd: servers.Etcd) -> None:
    config = configured(etcd)
    dying = Etcd(config)
    async with following(config) as (view, _):
        lease = await dying.grant(config.lease_s)  # and nobody keeps it, as after a kill
        value = msgspec.json.encode(endpoint("e1"))
        assert await dying.write({f"{config.prefix}/endpoints/aa/e1": value}, lease=lease)
        await until(lambda: view.models() == ["m"])
        await until(lambda: view.models() == [])
        assert not await dying.keep_alive(lease)
    await dying.close()


async def test_what_was_compacted_away_is_listed_again(
    etcd: servers.Etcd, publish: Callable[..., EtcdRegistry]
) -> None:
    config = configured(etcd)
    registry = publish(config)
    await asyncio.to_thread(registry.replace, "config", [endpoint("e1")])
    async with following(config) as (view, follower):
        old = await follower._etcd.list(config.prefix)
        await asyncio.to_thread(registry.replace, "config", [endpoint("e1", weight=2)])
        await asyncio.to_thread(registry.replace, "config", [endpoint("e1", weight=3)])
        now = await follower._etcd.list(config.prefix)
        await follower._etcd._call("/v3/kv/compaction", {"revision": now.revision, "physical": True})
        assert [each async for each in follower._etcd.watch(config.prefix, old.revision, quiet_s=5)] == []
        await until(lambda: view.endpoints("m")[0].weight == 3)


async def test_an_outage_freezes_what_is_known(
    own_etcd: servers.Etcd, publish: Callable[..., EtcdRegistry], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = configured(own_etcd, timeout_s=0.5)
    registry = publish(config)
    await asyncio.to_thread(registry.replace, "config", [endpoint("e1", model="a")])
    kept = tmp_path / "registry.json"
    async with following(config, kept=kept) as (view, follower):
        await until(lambda: view.models() == ["a"])
        own_etcd.stop()
        await until(lambda: not follower.connected)
        # Asked for while it is away; a new process that starts now knows what was known last.
        changing = asyncio.ensure_future(
            asyncio.to_thread(registry.replace, "config", [endpoint("e1", model="a"), endpoint("e2", model="b")])
        )
        async with following(config, kept=kept) as (second, late):
            assert not late.connected
            assert second.models() == ["a"]
        await asyncio.sleep(2.5)  # longer than the lease
        assert view.models() == ["a"]
        await changing
        own_etcd.start()
        await until(lambda: follower.connected and view.models() == ["a", "b"])
    assert caplog.text.count("the endpoints stay as they were known last") == 2, "once for each of the two"


async def test_data_that_is_lost_is_published_again_and_not_missed_meanwhile(
    own_etcd: servers.Etcd, publish: Callable[..., EtcdRegistry]
) -> None:
    config = configured(own_etcd, timeout_s=0.5, grace_s=3)
    registry, gone = publish(config), publish(config, "bb")
    await asyncio.to_thread(registry.replace, "config", [endpoint("e1", model="a")])
    await asyncio.to_thread(gone.replace, "config", [endpoint("e2", model="b", url="http://h:2/v1")])
    seen: list[list[str]] = []
    async with following(config) as (view, follower):
        await until(lambda: view.models() == ["a", "b"])
        view.subscribe(lambda: seen.append(view.models()))
        own_etcd.stop()
        await until(lambda: not follower.connected)
        gone._closed = True  # its publisher died in the outage
        own_etcd.forget()
        own_etcd.start()
        await until(lambda: view.models() == ["a"])
    assert all("a" in models for models in seen), "a publisher that lives is never missed"


async def test_the_next_member_is_asked(etcd: servers.Etcd, publish: Callable[..., EtcdRegistry]) -> None:
    config = configured(etcd, etcd=["http://127.0.0.1:9", etcd.url])
    registry = publish(config)
    await asyncio.to_thread(registry.replace, "config", [endpoint("e1")])
    async with following(config) as (view, follower):
        assert follower.connected
        assert view.models() == ["m"]
