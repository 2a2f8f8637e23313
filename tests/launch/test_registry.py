"""`parkway up` with its endpoints in etcd: two that share them, and an etcd that is away at every start."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from parkway.launch.settings import Settings
from tests import servers
from tests.gateway.upstream import Upstream
from tests.launch.stage import Up, parkway, up, wait_until


@pytest.fixture
async def upstream() -> AsyncIterator[str]:
    upstream = Upstream()
    yield await upstream.start()
    await upstream.stop()


def _status(started: Up, model: str) -> int:
    body = {"model": model, "messages": [{"role": "user", "content": "hello"}]}
    response = started.request("POST", "/v1/chat/completions", body)
    response.read()
    return response.status


def _models(started: Up) -> list[str]:
    return [each["id"] for each in json.load(started.request("GET", "/v1/models"))["data"]]


def _in_threads(tmp_path: Path, etcd: servers.Etcd, url: str) -> None:
    def settings(model: str) -> dict[str, Any]:
        registry = {"etcd": [etcd.url], "lease_s": 2, "timeout_s": 1}
        return {"models": {model: url}, "registry": registry, "pulled_models": False}

    with up(tmp_path / "one", settings("echo")) as one:
        one.ready()
        with up(tmp_path / "two", settings("other")) as two:
            two.ready()
            wait_until(lambda: _models(one) == ["echo", "other"], "what the other has published")
            assert _status(two, "echo") == 200
            listed = json.loads(parkway(two.home, "models", "--json").stdout)
            assert [each["endpoint_id"] for each in listed] == [f"echo@0~{_publisher(one)}", "other@0"]
            two.process.kill()
            wait_until(lambda: _models(one) == ["echo"], "the end of the lease of the one that was killed")
        etcd.stop()
        wait_until(lambda: b"etcd does not answer" in one.request("GET", "/readyz").read(), "the warning")
        assert parkway(one.home, "reload").returncode == 0, "a gateway that starts now knows what was known last"
        assert _status(one, "echo") == 200
        one.process.terminate()
        assert one.wait() == 0
    with up(tmp_path / "one", settings("echo")) as again:
        again.ready()
        assert _status(again, "echo") == 200
        assert "etcd does not answer" in again.told()
        etcd.start()
        wait_until(lambda: "etcd is back" in again.told(), "the endpoints to be published")
        wait_until(lambda: b'warnings":[]' in again.request("GET", "/readyz").read(), "the end of the warning")


async def test_two_share_a_registry_and_neither_needs_it_to_serve(tmp_path: Path, upstream: str) -> None:
    try:
        etcd = servers.Etcd()
    except servers.Missing as error:
        pytest.skip(f"needs etcd: {error}")
    try:
        await asyncio.to_thread(_in_threads, tmp_path, etcd, upstream)
    finally:
        etcd.close()


@pytest.mark.parametrize(
    "registry",
    [
        {"etcd": ["etcd.example.com:2379"]},
        {"etcd": ["http://user:password@h:2379"]},
        {"etcd": ["http://h:2379"], "user": "root"},
        {"etcd": ["https://h:2379"], "cert_file": "cert.pem"},
        {"prefix": "no-slash"},
    ],
)
def test_what_cannot_work_is_refused(registry: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"etcd|user|cert_file|prefix"):
        Settings.model_validate({"registry": registry})


def _publisher(started: Up) -> str:
    return (started.home / "publisher").read_text()
