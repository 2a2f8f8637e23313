"""The gateway's configuration."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from parkway.core.configuration import Section


class GatewayConfig(Section):
    """Where the gateway listens and how long it waits."""

    host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    workers: Annotated[int, Field(ge=1, le=64)] = 1
    """Gateway processes on the port. What is counted in memory, limits among it, each counts for itself."""
    timeout_s: Annotated[float, Field(gt=0, le=86_400)] = 600.0
    """The longest that a request may take; a client may ask for less with the header `x-parkway-timeout-s`."""
    body_timeout_s: Annotated[float, Field(gt=0, le=86_400)] = 30.0
    """The longest that a client may take to send a request body."""
    drain_s: Annotated[float, Field(ge=0, le=86_400)] = 30.0
    """How long running requests may go on after SIGTERM, or in a process that was replaced."""
    max_requests: Annotated[int, Field(gt=0)] = 4096
    """The most requests at one moment; one more is refused with 503 and `Retry-After`."""
    max_connections: Annotated[int, Field(gt=0)] = 16_384
    """The most connections at one moment, idle ones too."""
    head_timeout_s: Annotated[float, Field(gt=0, le=3600)] = 15.0
    """The longest that a client may take to send a request's headers."""


@dataclass(slots=True)
class InForce:
    """The section as it is in force. Whoever goes by it reads it here, each time."""

    gateway: GatewayConfig
