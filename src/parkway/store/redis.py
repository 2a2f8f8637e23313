"""Redis, which several gateways share: where it is, and how long to wait for it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from parkway.core.configuration import Section
from parkway.core.errors import StartupError

if TYPE_CHECKING:
    from redis.asyncio import Redis


class RedisConfig(Section):
    """Where Redis is; without `url` and `url_env` there is none, and each gateway counts and caches for itself.

    Attributes:
        url: `redis://[user:password@]host:6379/0`, `rediss://` for TLS, or `unix:///path`.
        url_env: The environment variable that holds the URL, so that no password stands in the file.
        timeout_s: The longest that anybody waits for one answer of it.
        connections: The most that one process keeps.
        prefix: Before the names of all keys; installations that share a Redis need one each.
    """

    url: str | None = None
    url_env: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] | None = None
    timeout_s: Annotated[float, Field(gt=0, le=60)] = 0.25
    connections: Annotated[int, Field(ge=1, le=1000)] = 16
    prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")] = "parkway"

    @field_validator("url")
    @classmethod
    def _is_url(cls, url: str | None) -> str | None:
        if url is not None and urlsplit(url).scheme not in ("redis", "rediss", "unix"):
            raise ValueError("not a redis://, rediss:// or unix:// URL")
        return url

    @property
    def configured(self) -> bool:
        return self.url is not None or self.url_env is not None


def connect(config: RedisConfig) -> Redis | None:
    """A client with a pool of its own, whose answers are bytes; None where no Redis is configured.

    It connects when it is first used: a Redis that is away does not keep Parkway from starting. The caller closes it.

    Raises:
        StartupError: `url_env` is not set, the URL is broken, or the package `redis` is not installed.
    """
    if not config.configured:
        return None
    url = config.url or os.environ.get(config.url_env or "", "")
    if not url:
        raise StartupError(f"redis.url_env: the environment variable {config.url_env} is not set; it holds the URL")
    try:
        from redis.asyncio import Redis
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff
    except ImportError as error:
        raise StartupError("Redis needs the package `redis`; install it: pip install 'parkway[redis]'") from error
    try:
        return Redis.from_url(
            url,
            max_connections=config.connections,
            socket_timeout=config.timeout_s,
            socket_connect_timeout=config.timeout_s,
            # Who uses it knows better whether to ask again, and has a deadline.
            retry=Retry(NoBackoff(), 0),
            client_name="parkway",
        )
    except ValueError as error:
        raise StartupError(f"{'redis.url' if config.url else config.url_env}: not a URL of a Redis") from error
