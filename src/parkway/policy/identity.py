"""Who is asking: the bearer of a key of ours, or of a token of an identity provider."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from parkway.core.errors import InvalidKey
from parkway.core.tasks import Tasks
from parkway.policy.caller import Caller
from parkway.policy.issuers import IdentityConfig, IssuerConfig
from parkway.policy.key_ring import KeyRing
from parkway.policy.oidc import Provider
from parkway.policy.tokens import Tokens

if TYPE_CHECKING:
    import aiohttp

_NO_TOKENS = Tokens(IdentityConfig(), {})


class Identity:
    """Knows callers by what they send.

    Args:
        clock: Seconds since 1970.
        environment: Where shared secrets are.
    """

    def __init__(
        self,
        keys: KeyRing,
        *,
        clock: Callable[[], float] = time.time,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        self._keys = keys
        self._clock = clock
        self._environment = environment
        self._tokens = _NO_TOKENS
        self._tasks = Tasks("identity")
        self._session: aiohttp.ClientSession | None = None

    def prepare(self, config: IdentityConfig) -> Callable[[], None]:
        """Makes ready to trust the issuers of `config`, and nobody else; what it returns puts that into force.

        An issuer whose entry is the same keeps its keys.

        Raises:
            ConfigurationError: A secret is missing or too short. Nothing has changed then.
        """
        before = self._tokens.providers
        providers: dict[str, Provider] = {}
        for each in config.issuers:
            known = before.get(each.issuer)
            same = known is not None and known.config == each
            providers[each.issuer] = known if same and known else self._provider(each)
        tokens = Tokens(config, providers, self._clock) if providers else _NO_TOKENS

        def commit() -> None:
            self._tokens = tokens
            for provider in before.values():
                if provider is not providers.get(provider.config.issuer):
                    provider.stop()
            for provider in providers.values():
                provider.start()

        return commit

    async def identify(self, authorization: str | None, api_key: str | None = None) -> Caller:
        """Whose credentials these are.

        Args:
            authorization: The header of this name: `Bearer` and a key or a token.
            api_key: The header `x-api-key`: a key or a token.

        Raises:
            MissingKey, InvalidKey, ExpiredKey: As for `KeyRing.identify`; InvalidKey also where two different
                credentials were sent.
            InvalidToken, ExpiredToken, IdentityUnavailable: As for `Tokens.verify`.
        """
        if api_key is not None:
            authorization = _joined(authorization, api_key)
        if self._tokens.providers and authorization:
            scheme, _, token = authorization.partition(" ")
            token = token.strip()
            if scheme.lower() == "bearer" and token.count(".") == 2:  # no key of ours has a dot in it
                return self._tokens.known(token) or await self._tokens.verify(token)
        return self._keys.identify(authorization)

    async def close(self) -> None:
        """Ends everything that runs for it."""
        await self._tasks.close()
        if self._session is not None:
            await self._session.close()

    def _provider(self, config: IssuerConfig) -> Provider:
        return Provider(config, self._connected, self._tasks, secret=config.secret(self._environment))

    def _connected(self) -> aiohttp.ClientSession:
        if self._session is None:
            import aiohttp  # 170 ms, for who has issuers

            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=8),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
            )
        return self._session


def _joined(authorization: str | None, api_key: str) -> str:
    """The one credential that was sent in either header."""
    sent = f"Bearer {api_key.strip()}"
    if authorization is None:
        return sent
    if authorization.partition(" ")[2].strip() != api_key.strip():
        raise InvalidKey(
            "Two different credentials were sent, in `Authorization` and in `x-api-key`; send one of them."
        )
    return authorization
