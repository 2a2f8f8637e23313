"""Tokens of identity providers (JWT): verified once, then known until they expire.

Sources: RFC 7519 (JWT), RFC 7515 (JWS), RFC 8725 (best current practices).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from parkway.core.errors import ExpiredToken, InvalidToken
from parkway.policy.caller import Caller
from parkway.policy.claims import caller_of, read_object, seconds_of
from parkway.policy.issuers import IdentityConfig
from parkway.policy.oidc import Provider
from parkway.policy.signing_keys import MAX_KID_LENGTH, SigningKey

_FORM = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*")
_MAX_HEADER_CHARS = 4096
_TYPES = ("jwt", "at+jwt", "application/at+jwt")


@dataclass(frozen=True, slots=True)
class _Verified:
    """What is remembered of a token. Times are in seconds since 1970, with the clock's skew in them."""

    caller: Caller
    provider: Provider
    generation: int
    not_before: float
    expires: float


class Tokens:
    """Knows the bearers of tokens.

    Args:
        providers: By the name of the issuer.
        clock: Seconds since 1970.
    """

    def __init__(
        self, config: IdentityConfig, providers: Mapping[str, Provider], clock: Callable[[], float] = time.time
    ) -> None:
        self.providers = providers
        self._config = config
        self._clock = clock
        # By the SHA-256 of the whole token: of a part of it, another token could have the same.
        self._verified: dict[bytes, _Verified] = {}

    def __len__(self) -> int:
        """How many tokens are remembered."""
        return len(self._verified)

    def known(self, token: str) -> Caller | None:
        """Whose token it is, if it was verified before and nothing has changed since; a few microseconds.

        Raises:
            ExpiredToken: It was good once.
        """
        digest = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
        known = self._verified.get(digest)
        if known is None:
            return None
        if known.generation != known.provider.generation or not known.provider.good:
            del self._verified[digest]
            return None
        now = self._clock()
        if not known.not_before <= now < known.expires:
            del self._verified[digest]
            if now >= known.expires:
                raise _expired()
            return None
        return known.caller

    async def verify(self, token: str) -> Caller:
        """Whose token it is.

        Raises:
            InvalidToken: It is malformed, not for us, or not signed by an issuer of ours. Never holds the token.
            ExpiredToken: It was good once.
            IdentityUnavailable: Its issuer cannot be asked for the key that it is signed with.
        """
        if len(token) > self._config.max_token_bytes:
            raise InvalidToken(
                f"The token has {len(token)} characters; {self._config.max_token_bytes} are read, set by "
                "identity.max_token_bytes."
            )
        if not _FORM.fullmatch(token):
            raise InvalidToken("This is no token: one is three parts in base64url with dots between them.")
        head, body, _ = token.split(".")
        algorithm, kid = _read_header(head)
        claims = read_object(_decoded(body, "payload"), "payload")
        provider = self._provider(claims, algorithm)
        key = await provider.key(kid, algorithm)
        generation = provider.generation
        _check_signature(token, key, algorithm)
        not_before, expires = self._check_times(claims, provider)
        _check_audience(claims, provider)
        caller = caller_of(claims, provider.config)
        self._remember(token, _Verified(caller, provider, generation, not_before, expires))
        return caller

    def _provider(self, claims: Mapping[str, Any], algorithm: str) -> Provider:
        """Who says that it has signed the token; believed only when the signature fits to a key of its own."""
        issuer = claims.get("iss")
        provider = self.providers.get(issuer) if isinstance(issuer, str) else None
        if provider is None:
            raise InvalidToken(f"The token's issuer {str(issuer)[:200]!r} is none of identity.issuers.")
        if algorithm not in provider.algorithms:
            raise InvalidToken(
                f"The token is signed with {algorithm[:20]!r}; identity.issuers allows "
                f"{', '.join(provider.config.algorithms)}."
            )
        return provider

    def _check_times(self, claims: Mapping[str, Any], provider: Provider) -> tuple[float, float]:
        """From when and until when it is good, in seconds since 1970."""
        skew_s = provider.config.clock_skew_s
        expires, begins = seconds_of(claims, "exp"), seconds_of(claims, "nbf")
        issued = seconds_of(claims, "iat")
        if expires is None:
            raise InvalidToken("The token has no `exp`: one that never expires is not taken.")
        now = self._clock()
        if now >= expires + skew_s:
            raise _expired()
        not_before = max(begins or 0.0, issued or 0.0) - skew_s
        if now < not_before:
            raise InvalidToken("The token is not good yet: its `nbf` or `iat` lies in the future.")
        return not_before, expires + skew_s

    def _remember(self, token: str, verified: _Verified) -> None:
        most = self._config.max_cached_tokens
        if len(self._verified) >= most > 0:
            del self._verified[next(iter(self._verified))]  # the oldest, which expires first as a rule
        if most:
            self._verified[hashlib.sha256(token.encode()).digest()] = verified


def _expired() -> ExpiredToken:
    return ExpiredToken("The token has expired; sign in again for a new one.")


def _read_header(part: str) -> tuple[str, str | None]:
    """Algorithm and key id. Keys, and addresses of keys, that a header brings along are not looked at."""
    if len(part) > _MAX_HEADER_CHARS:
        raise InvalidToken(f"The token's header has {len(part)} characters; {_MAX_HEADER_CHARS} are read.")
    header = read_object(_decoded(part, "header"), "header")
    if "crit" in header or "b64" in header:
        raise InvalidToken("The token's header asks for extensions that are not understood here.")
    if str(header.get("typ", "JWT")).lower() not in _TYPES:
        raise InvalidToken(f"The token's `typ` is {str(header.get('typ'))[:40]!r}; JWT and at+jwt are taken.")
    algorithm, kid = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str):
        raise InvalidToken("The token's header has no `alg`.")
    if kid is not None and not (isinstance(kid, str) and 0 < len(kid) <= MAX_KID_LENGTH):
        raise InvalidToken(f"The token's `kid` is not 1 to {MAX_KID_LENGTH} characters.")
    return algorithm, kid


def _decoded(part: str, what: str) -> bytes:
    try:
        return base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidToken(f"The token's {what} is not base64url.") from error


def _check_signature(token: str, key: SigningKey, algorithm: str) -> None:
    from jwt.api_jws import PyJWS  # with cryptography: 80 ms, for who has issuers
    from jwt.exceptions import PyJWTError

    try:
        PyJWS().decode(token, key.key, algorithms=[algorithm])
    except PyJWTError as error:
        raise InvalidToken("The token's signature does not fit.") from error


def _check_audience(claims: Mapping[str, Any], provider: Provider) -> None:
    audience = claims.get("aud")
    given = {audience} if isinstance(audience, str) else audience
    if isinstance(given, list):
        given = {each for each in given if isinstance(each, str)}
    if not isinstance(given, set) or provider.audiences.isdisjoint(given):
        raise InvalidToken("The token is meant for somebody else: its `aud` is not the `audience` of its issuer here.")
