"""An identity provider over HTTP: discovery, keys that rotate, outages and slow answers."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from functools import cache
from typing import Any

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

AUDIENCE = "parkway"


@cache
def rsa_key(number: int = 0) -> rsa.RSAPrivateKey:
    """One of a few keys that are made once: making them takes long."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def part(value: object) -> str:
    """A part of a token as its bytes, or as JSON."""
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class IdentityProvider:
    """Listens on an ephemeral port. What it answers can be changed at any time."""

    def __init__(self) -> None:
        self.url = ""
        self.keys: dict[str, Any] = {}
        """By key id: private keys, whose public halves are published."""
        self.document: dict[str, Any] = {}
        """Takes the place of what the discovery document has."""
        self.jwks: object = None
        """Takes the place of the JWK set; bytes are sent as they are."""
        self.status = 200
        self.asked: list[str] = []
        self.reached = asyncio.Event()
        """Set when it is asked for something."""
        self.gate = asyncio.Event()
        """Answers wait for it."""
        self.gate.set()
        self._runner: web.ServerRunner | None = None

    async def start(self) -> None:
        self._runner = web.ServerRunner(web.Server(self._serve), shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}/realm"
        self.rotate("k1")

    async def stop(self) -> None:
        self.gate.set()
        if self._runner is not None:
            await self._runner.cleanup()

    def rotate(self, *kids: str) -> None:
        """Has keys with these ids from now on, and no others."""
        self.keys = {kid: ec.generate_private_key(ec.SECP256R1()) for kid in kids}

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Good ones, but for `changes`; None leaves one out."""
        now = time.time()
        claims = {"iss": self.url, "aud": AUDIENCE, "sub": "ada", "iat": now, "exp": now + 600, **changes}
        return {name: value for name, value in claims.items() if value is not None}

    def token(
        self, kid: str | None = "k1", *, key: Any = None, header: dict[str, Any] | None = None, **changes: Any
    ) -> str:
        """A good token, but for what is asked for."""
        key = key or self.keys[str(kid)]
        algorithm = {
            ec.EllipticCurvePrivateKey: "ES256", rsa.RSAPrivateKey: "RS256", ed25519.Ed25519PrivateKey: "EdDSA",
        }  # fmt: skip
        name = next(name for kind, name in algorithm.items() if isinstance(key, kind))
        headers = {**({} if kid is None else {"kid": kid}), **(header or {})}
        return jwt.encode(self.claims(**changes), key, algorithm=name, headers=headers)

    def raw(self, header: object, payload: object | None = None, *, sign: Any = None) -> str:
        """A token of exactly these parts, signed by `sign(input)` or not at all."""
        signed = f"{part(header)}.{part(self.claims() if payload is None else payload)}"
        return f"{signed}.{part(sign(signed.encode())) if sign else ''}"

    def es256(self, data: bytes, kid: str = "k1") -> bytes:
        """The signature of `data` by a key of ours."""
        return jwt.get_algorithm_by_name("ES256").sign(data, self.keys[kid])

    def published(self) -> dict[str, Any]:
        """The JWK set."""
        return {"keys": [public_jwk(key, kid) for kid, key in self.keys.items()]}

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        self.asked.append(request.path)
        self.reached.set()
        await self.gate.wait()
        if self.status != 200:
            return web.Response(status=self.status, headers={"location": f"{self.url}/jwks"})
        if request.path.endswith("/.well-known/openid-configuration"):
            return web.json_response({"issuer": self.url, "jwks_uri": f"{self.url}/jwks", **self.document})
        if isinstance(self.jwks, bytes):
            return web.Response(body=self.jwks, content_type="application/json")
        return web.json_response(self.jwks or self.published())


def public_jwk(key: Any, kid: str, **changes: Any) -> dict[str, Any]:
    """The public half of `key` as a JWK."""
    name = "RS256" if isinstance(key, rsa.RSAPrivateKey) else "EdDSA" if hasattr(key, "private_bytes_raw") else "ES256"
    return {**jwt.get_algorithm_by_name(name).to_jwk(key.public_key(), as_dict=True), "kid": kid, **changes}
