"""A gateway whose endpoints stand in etcd: it serves while etcd is killed, and follows again when it is back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from parkway.core.tasks import Tasks
from parkway.launch.settings import Settings
from parkway.router.endpoint import Endpoint
from parkway.router.etcd_registry import EtcdRegistry
from parkway.router.registry import EndpointRegistry
from tests.gateway.conftest import Gate, StartGate
from tests.router.conftest import until
from tests.servers import Etcd, Missing

CHAT = {"messages": [{"role": "user", "content": "hello"}]}


@pytest.fixture
def own_etcd() -> Iterator[Etcd]:
    """An etcd that a test may stop."""
    try:
        server = Etcd()
    except Missing as error:
        pytest.skip(f"needs etcd: {error}")
    yield server
    server.close()


async def test_an_outage_of_etcd_costs_no_request(start_gate: StartGate, own_etcd: Etcd) -> None:
    settings = Settings.model_validate(
        {"models": {}, "registry": {"etcd": [own_etcd.url], "lease_s": 2, "timeout_s": 0.5},
         "limits": {"rate_per_s": 100_000, "burst": 100_000}}
    )  # fmt: skip
    registry = EtcdRegistry(settings.registry, "aa")
    statuses: list[int] = []
    async with start_gate(settings) as gate, Tasks("test") as tasks:
        await publish(registry, gate, "first")
        await until(lambda: sees(gate, "first"))
        assert await health(gate) == (200, [], 1.0)

        async def ask() -> None:
            while True:
                response = await gate.post("/v1/chat/completions", {"model": "first", **CHAT})
                statuses.append(response.status)
                await asyncio.sleep(0.005)

        tasks.start(ask(), name="load")
        own_etcd.stop()
        await until(lambda: gate.readiness.warnings)
        assert await health(gate) == (200, ["etcd does not answer; the endpoints are those that were known last"], 0.0)
        before = len(statuses)
        await until(lambda: len(statuses) > before + 150)
        await publish(registry, gate, "first", "second")
        own_etcd.start()
        await until(lambda: sees(gate, "second"))
        await until(lambda: not gate.readiness.warnings)
        assert await health(gate) == (200, [], 1.0)
    assert set(statuses) == {200}
    await asyncio.to_thread(registry.close)


async def publish(registry: EndpointRegistry, gate: Gate, *models: str) -> None:
    endpoints = [
        Endpoint(endpoint_id=f"{name}@0", model=name, url=gate.upstream_url, upstream_model="echo") for name in models
    ]
    await asyncio.to_thread(registry.replace, "config", endpoints)


def sees(gate: Gate, model: str) -> bool:
    return bool(gate.readiness.view.endpoints(model))


async def health(gate: Gate) -> tuple[int, list[str], float]:
    """The status and the warnings of `/readyz`, and the figure."""
    response = await gate.get("/readyz")
    text = await (await gate.get("/metrics")).text()
    figure = next(line for line in text.splitlines() if line.startswith("parkway_registry_connected "))
    return response.status, (await response.json())["warnings"], float(figure.split()[1])
