"""The client of etcd against real ones: with passwords, with TLS, with members that are away or say nonsense."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import itertools
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from parkway.core.errors import ConfigurationError, StoreUnavailable
from parkway.store.config import EtcdConfig
from parkway.store.etcd import Etcd, Event
from tests import servers

_prefixes = itertools.count()


@pytest.fixture
def prefix() -> str:
    return f"/client-{next(_prefixes)}/"


@pytest.fixture
async def client(etcd: servers.Etcd) -> AsyncIterator[Etcd]:
    client = Etcd(EtcdConfig(etcd=[etcd.url]))
    yield client
    await client.close()


@pytest.fixture
def guarded() -> Iterator[servers.Etcd]:
    """An etcd whose settings a test may change."""
    try:
        server = servers.Etcd()
    except servers.Missing as error:
        pytest.skip(f"needs etcd: {error}")
    yield server
    server.close()


async def test_what_is_written_is_listed_and_watched(client: Etcd, prefix: str) -> None:
    before = await client.list(prefix)
    assert before.values == {}
    assert await client.write({f"{prefix}a": b"\x00\xff", f"{prefix}ä": b""})
    assert (await client.list(prefix)).values == {f"{prefix}a": b"\x00\xff", f"{prefix}ä": b""}
    await client.write({}, [f"{prefix}a"])
    seen: list[Event] = []
    async for events in client.watch(prefix, before.revision + 1, quiet_s=5):
        seen += events
        if len(seen) == 3:
            break
    assert seen == [Event(f"{prefix}a", b"\x00\xff"), Event(f"{prefix}ä", b""), Event(f"{prefix}a", None)]


async def test_long_lists_come_in_pages_of_one_moment(client: Etcd, prefix: str) -> None:
    wanted = {f"{prefix}{number}": str(number).encode() for number in range(1234)}
    await client.write(wanted)
    assert (await client.list(prefix)).values == wanted


async def test_a_lease_that_is_gone(client: Etcd, prefix: str) -> None:
    lease = await client.grant(30)
    assert await client.keep_alive(lease)
    assert await client.write({f"{prefix}a": b"1"}, lease=lease)
    await client.revoke(lease)
    await client.revoke(lease)
    assert not await client.keep_alive(lease)
    assert not await client.write({f"{prefix}a": b"1"}, lease=lease)
    assert (await client.list(prefix)).values == {}


async def test_a_user_with_a_password(
    guarded: servers.Etcd, prefix: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    setup = Etcd(EtcdConfig(etcd=[guarded.url]))
    await setup._call("/v3/auth/user/add", {"name": "root", "password": "a secret"})
    await setup._call("/v3/auth/role/add", {"name": "root"})
    await setup._call("/v3/auth/user/grant", {"user": "root", "role": "root"})
    await setup._call("/v3/auth/enable", {})
    with pytest.raises(StoreUnavailable):
        await setup.list(prefix)
    monkeypatch.setenv("ETCD_PASSWORD", "a secret")
    client = Etcd(EtcdConfig(etcd=[guarded.url], user="root", password_env="ETCD_PASSWORD"))
    assert await client.write({f"{prefix}a": b"1"})
    client._token = "expired.1"
    assert (await client.list(prefix)).values == {f"{prefix}a": b"1"}
    monkeypatch.setenv("ETCD_PASSWORD", "a wrong one")
    client._token = "expired.1"
    with pytest.raises(StoreUnavailable) as refused:
        await client.list(prefix)
    assert "a wrong one" not in refused.value.message + caplog.text
    await client.close()
    await setup.close()


async def test_tls(tmp_path: Path, prefix: str) -> None:
    cert, key = _certificate(tmp_path)
    try:
        server = servers.Etcd(cert=cert, key=key)
    except servers.Missing as error:
        pytest.skip(f"needs etcd: {error}")
    ours = Etcd(EtcdConfig(etcd=[server.url], ca_file=str(cert), cert_file=str(cert), key_file=str(key)))
    stranger = Etcd(EtcdConfig(etcd=[server.url], ca_file=str(cert)))
    doubting = Etcd(EtcdConfig(etcd=[server.url]))
    assert await ours.write({f"{prefix}a": b"1"})
    for client in (stranger, doubting):
        with pytest.raises(StoreUnavailable):
            await client.list(prefix)
    for client in (ours, stranger, doubting):
        await client.close()
    server.close()
    with pytest.raises(ConfigurationError, match="ca_file"):
        Etcd(EtcdConfig(etcd=["https://h:1"], ca_file=str(tmp_path / "none.pem")))


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"<html>", b"{" * 100_000, b'"' + b"x" * (17 << 20) + b'"'])
async def test_nonsense_is_an_outage(body: bytes) -> None:
    async def answer(_: web.BaseRequest) -> web.Response:
        return web.Response(body=body)

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    client = Etcd(EtcdConfig(etcd=[f"http://127.0.0.1:{runner.addresses[0][1]}"]))
    with pytest.raises(StoreUnavailable):
        await client.list("/x/")
    assert [each async for each in client.watch("/x/", 1, quiet_s=5)] == []
    await client.close()
    await runner.cleanup()


async def test_a_member_that_says_nothing_is_passed_over(etcd: servers.Etcd, prefix: str) -> None:
    silent = await asyncio.start_server(lambda *_: asyncio.sleep(60), "127.0.0.1", 0)
    address = f"http://127.0.0.1:{silent.sockets[0].getsockname()[1]}"
    client = Etcd(EtcdConfig(etcd=[address, etcd.url], timeout_s=0.2))
    assert (await client.list(prefix)).values == {}
    assert client.member == etcd.url
    await client.close()
    silent.close()


def _certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for the loopback that signs itself, good for servers and clients, and its key."""
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(private, hashes.SHA256())
    )
    cert, key = folder / "cert.pem", folder / "key.pem"
    cert.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return cert, key
