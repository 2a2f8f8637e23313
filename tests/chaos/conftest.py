"""What stands around the faults: a gateway whose router a test can look into, and a certificate that nobody trusts."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from parkway.launch.settings import Settings
from parkway.router.router import Router
from parkway.router.view import View
from tests.gateway.conftest import Gate, starter

FAILURES = 5
"""In a row, to open a breaker."""


SETTINGS = {
    "models": {},
    "limits": {"rate_per_s": 100_000, "burst": 100_000},
    "router": {
        "health_interval_s": 3600,
        "failures_to_eject": 100,
        "retry_pause_s": 0.001,
        "breaker": {"failures": FAILURES, "retry_s": 3600, "slow_s": 0.1},
    },
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Gate, Router, View]]:
    """One gateway for all faults, its router, and what that knows of endpoints: whatever a test loads into the view."""
    made: list[tuple[Router, View]] = []

    class Kept(Router):
        def __init__(self, _: View, *given: object, **named: object) -> None:
            view = View()
            super().__init__(view, *given, **named)  # pyright: ignore[reportArgumentType]
            made.append((self, view))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("parkway.launch.gateway.Router", Kept)
        async with starter(tmp_path_factory.mktemp("gateway"), no_delay=True)(
            Settings.model_validate(SETTINGS)
        ) as gate:
            yield gate, *made[0]


@pytest.fixture(scope="module")
def self_signed(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    """A server's TLS context with a certificate that nobody trusts."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    folder: Path = tmp_path_factory.mktemp("tls")
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context
