"""An issuer at work: its keys, fetched by OpenID Connect Discovery, kept, rotated, and outliving its outages.

Sources: OpenID Connect Discovery 1.0, sections 3 and 4; RFC 7517 (JWK); RFC 8414.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from parkway.core.errors import IdentityUnavailable, InvalidToken
from parkway.core.tasks import Tasks
from parkway.policy.issuers import IssuerConfig, fault_of
from parkway.policy.signing_keys import SigningKey, SigningKeys, read_keys

if TYPE_CHECKING:
    import aiohttp

log = logging.getLogger(__name__)

_MAX_DOCUMENT_BYTES = 512 * 1024
_DISCOVERY = "/.well-known/openid-configuration"


class Provider:
    """One issuer and the keys that it has now.

    The keys belong to this object and to nobody else: a key id means something only together with its issuer.

    Args:
        secret: The shared secret of an issuer that has one; then nothing is fetched.
        clock: Seconds, never going back.
    """

    def __init__(
        self,
        config: IssuerConfig,
        session: Callable[[], aiohttp.ClientSession],
        tasks: Tasks,
        *,
        secret: bytes | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.config = config
        self.audiences = config.audiences
        self.algorithms = frozenset(config.algorithms)
        self.generation = 0
        """Raised when the keys change: what was verified before has to be verified again."""
        self._session = session
        self._tasks = tasks
        self._clock = clock
        self._keys: SigningKeys = {}
        self._document: object = None
        self._good_until = -1.0
        self._fetch_from = -1.0
        self._fetching: asyncio.Task[None] | None = None
        self._away = False
        self._following: asyncio.Task[None] | None = None
        if secret is not None:
            self._keys = {None: SigningKey(secret, self.algorithms)}
            self._good_until = float("inf")

    def __repr__(self) -> str:
        return f"Provider({self.config.issuer})"

    @property
    def good(self) -> bool:
        """Whether there are keys, and they are young enough to rely on."""
        return self._clock() < self._good_until

    def start(self) -> None:
        """Reads the keys, and again every `refresh_s`, until `stop`."""
        if self.config.secret_env is None and self._following is None:
            self._following = self._tasks.every(self.config.refresh_s, self._fetched, name=f"{self} keys")

    def stop(self) -> None:
        """Reads no more keys."""
        if self._following is not None:
            self._following.cancel()
            self._following = None

    async def key(self, kid: str | None, algorithm: str) -> SigningKey:
        """The key with this id, for this algorithm.

        One that is not known is looked for at the issuer once for all who wait, at most every `refetch_s`.

        Raises:
            InvalidToken: There is no such key, or it is for another algorithm.
            IdentityUnavailable: The issuer cannot be reached, and there are no keys that are young enough.
        """
        if self.config.secret_env is not None:
            kid = None  # there is one secret, whatever a token calls it
        elif not self.good or kid not in self._keys:
            if self._fetching is not None or self._clock() >= self._fetch_from:
                await self._fetched()
            if not self.good:
                raise IdentityUnavailable(
                    f"the identity provider {self.config.issuer} does not answer, so that no token can be checked; "
                    "try again",
                    retry_after_s=max(1.0, self._fetch_from - self._clock()),
                )
        key = self._keys.get(kid)
        if key is None:
            raise InvalidToken("The token is signed with a key that its issuer does not have.")
        if algorithm not in key.algorithms:
            raise InvalidToken(f"The token says {algorithm}, and its key is for {', '.join(sorted(key.algorithms))}.")
        return key

    async def _fetched(self) -> None:
        """One fetch for all who come while it runs."""
        if self._fetching is None:
            self._fetching = self._tasks.start(self._refresh(), name=f"{self} fetch")
            self._fetching.add_done_callback(self._end_fetch)
        # Whoever leaves must not take the fetch along, for which others wait.
        await asyncio.shield(self._fetching)

    def _end_fetch(self, _: asyncio.Task[None]) -> None:
        self._fetching = None

    async def _refresh(self) -> None:
        """Reads the keys again; where that fails, they stay as they are."""
        import aiohttp  # 170 ms, for who has issuers

        self._fetch_from = self._clock() + self.config.refetch_s
        try:
            document = await self._fetch()
            keys = read_keys(document)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError, RecursionError) as error:
            if not self._away:
                log.warning("identity provider %s: %s; its known keys are kept", self.config.issuer, _reason(error))
            self._away = True
            return
        if self._away:
            log.warning("identity provider %s: is back", self.config.issuer)
        self._away = False
        self._good_until = self._clock() + self.config.max_stale_s
        if document != self._document:
            self._keys, self._document = keys, document
            self.generation += 1
            log.info("identity provider %s: has %d keys", self.config.issuer, len(keys))

    async def _fetch(self) -> object:
        """The JWK set as it is published now. Raises ValueError where what is sent is not what it has to be."""
        url = self.config.jwks_url
        if url is None:
            discovered = await self._get(self.config.issuer.rstrip("/") + _DISCOVERY)
            named = discovered.get("issuer") if isinstance(discovered, dict) else None
            if not isinstance(discovered, dict) or named != self.config.issuer:
                raise ValueError(f"its discovery document is for the issuer {str(named)[:200]!r}")
            url = discovered.get("jwks_uri")
            if not isinstance(url, str) or fault_of(url):
                raise ValueError(f"`jwks_uri` in its discovery document is {str(url)[:200]!r}: {fault_of(str(url))}")
        return await self._get(url)

    async def _get(self, url: str) -> Any:
        import aiohttp

        async with self._session().get(
            url,
            allow_redirects=False,  # what answers elsewhere is somebody else
            timeout=aiohttp.ClientTimeout(total=self.config.timeout_s),
            headers={"accept": "application/json", "accept-encoding": "identity"},
        ) as response:
            if response.status != 200:
                raise ValueError(f"{url} answered {response.status}")
            body = bytearray()
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > _MAX_DOCUMENT_BYTES:
                    raise ValueError(f"{url} sent more than {_MAX_DOCUMENT_BYTES} bytes")
        return json.loads(bytes(body))


def _reason(error: BaseException) -> str:
    return "did not answer in time" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
