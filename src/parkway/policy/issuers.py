"""Which identity providers are trusted, for what, and how their tokens are read."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, StringConstraints, field_validator, model_validator

from parkway.core.configuration import Section
from parkway.core.errors import ConfigurationError

Algorithm = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "HS256", "HS384", "HS512"
]
Seconds = Annotated[float, Field(gt=0, le=86_400)]
ClaimName = Annotated[str, StringConstraints(min_length=1, max_length=200)]
VariableName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Text = Annotated[str, StringConstraints(min_length=1, max_length=1000)]

_MIN_SECRET_BYTES = 32

ASYMMETRIC: tuple[Algorithm, ...] = (
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
)  # fmt: skip


class IssuerConfig(Section):
    """One identity provider.

    Attributes:
        issuer: Exactly what its tokens have as `iss`; its discovery document lies under it.
        audience: Exactly what its tokens have as `aud`, or have in it; any one of several.
        algorithms: With which its tokens may be signed.
        secret_env: The environment variable with a secret that is shared with the issuer, for HS256 and its kin; then
            nothing is fetched from it.
        jwks_url: Where its keys are, if it has no discovery document.
        clock_skew_s: By how much its clock may differ from ours.
        user_claim, team_claim, tier_claim: The claims that say whose token it is. One in an object is written with
            dots: `realm_access.team`.
        scopes_claim: The claim with scopes, a list or words in a row. A token without it is then good for nothing;
            without this key tokens are not restricted, but do not administer either.
        scopes_prefix: Only scopes that begin so count, and lose it: `parkway:`.
        required_claims: Claims that a token must have: a value, or one of several values.
        timeout_s: The longest that an answer of the issuer may take.
        refresh_s: How often its keys are read again.
        refetch_s: How often at most they are read because a token names a key that is not among them.
        max_stale_s: For how long known keys are good while the issuer cannot be reached.
    """

    issuer: Text
    audience: Text | Annotated[list[Text], Field(min_length=1, max_length=32)]
    algorithms: Annotated[list[Algorithm], Field(min_length=1)] = list(ASYMMETRIC)
    secret_env: VariableName | None = None
    jwks_url: str | None = None
    clock_skew_s: Annotated[float, Field(ge=0, le=300)] = 30.0
    user_claim: ClaimName = "sub"
    team_claim: ClaimName | None = None
    tier_claim: ClaimName | None = None
    scopes_claim: ClaimName | None = None
    scopes_prefix: Annotated[str, StringConstraints(max_length=100)] = ""
    required_claims: Annotated[dict[ClaimName, Text | list[Text]], Field(max_length=32)] = {}
    timeout_s: Annotated[float, Field(gt=0, le=60)] = 5.0
    refresh_s: Seconds = 300.0
    refetch_s: Seconds = 10.0
    max_stale_s: Annotated[float, Field(gt=0, le=2_592_000)] = 86_400.0

    @field_validator("issuer", "jwks_url")
    @classmethod
    def _secure(cls, url: str | None) -> str | None:
        if url is not None and (fault := fault_of(url)):
            raise ValueError(fault)
        return url

    @model_validator(mode="after")
    def _one_kind_of_key(self) -> IssuerConfig:
        symmetric = {algorithm for algorithm in self.algorithms if algorithm.startswith("HS")}
        if self.secret_env is None and symmetric:
            raise ValueError(
                f"{min(symmetric)} is signed with a shared secret, and a public key must never be taken for one; "
                "name the secret with `secret_env`, or leave it out"
            )
        if self.secret_env is not None and (len(symmetric) != len(self.algorithms) or self.jwks_url):
            raise ValueError(
                "with `secret_env`, `algorithms` has HS256, HS384 or HS512 alone, and there is no `jwks_url`"
            )
        return self

    def secret(self, environment: Mapping[str, str] = os.environ) -> bytes | None:
        """The shared secret; None of an issuer that has none.

        Raises:
            ConfigurationError: It is missing or too short.
        """
        if self.secret_env is None:
            return None
        secret = environment.get(self.secret_env, "").encode()
        if len(secret) < _MIN_SECRET_BYTES:
            raise ConfigurationError(
                f"identity.issuers.secret_env: the environment variable {self.secret_env} has {len(secret)} bytes; a "
                f"secret that signs tokens has at least {_MIN_SECRET_BYTES}"
            )
        return secret

    @property
    def audiences(self) -> frozenset[str]:
        return frozenset([self.audience] if isinstance(self.audience, str) else self.audience)


class IdentityConfig(Section):
    """How callers are known who come without a key of ours."""

    issuers: Annotated[list[IssuerConfig], Field(max_length=32)] = []
    """Identity providers; see docs/identity.md."""
    max_token_bytes: Annotated[int, Field(ge=256, le=65_536)] = 16_384
    max_cached_tokens: Annotated[int, Field(ge=0, le=1_000_000)] = 10_000
    """Tokens that were verified and need not be so again until they expire."""

    @model_validator(mode="after")
    def _each_once(self) -> IdentityConfig:
        names = [issuer.issuer for issuer in self.issuers]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"the issuer {twice[0]} is given twice; several audiences go into one `audience` list")
        return self


def fault_of(url: str) -> str | None:
    """Why `url` may not be asked for keys; None if it may: by https, or by http on this machine."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        return f"not a URL: {error}"
    if not host or parts.scheme not in ("http", "https") or parts.username or parts.fragment or not url.isprintable():
        return "not an https:// URL with a host and without a user or fragment"
    if parts.scheme == "http" and not _on_this_machine(host):
        return "has to be https://; whoever is in between could give other keys"
    return None


def _on_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
