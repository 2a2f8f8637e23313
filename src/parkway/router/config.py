"""The router's configuration."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from parkway.core.configuration import Section

Seconds = Annotated[float, Field(gt=0, le=3600)]
Times = Annotated[int, Field(ge=1, le=100)]


class RouterConfig(Section):
    """How requests are spread over endpoints, and what happens when one fails."""

    balance: Literal["least_outstanding", "weighted_round_robin"] = "least_outstanding"

    health_interval_s: Seconds = 5.0
    health_timeout_s: Seconds = 2.0
    failures_to_eject: Times = 3
    """So many failed health checks in a row, and an endpoint gets no requests until it passes again."""
    successes_to_restore: Times = 1

    connect_timeout_s: Seconds = 2.0
    max_attempts: Annotated[int, Field(ge=1, le=10)] = 3
    """The first attempt counts: 1 means no retries."""
    retry_pause_s: Annotated[float, Field(ge=0, le=10)] = 0.1
    """The wait before the one retry on the same endpoint, where a model has no other."""

    connections_per_endpoint: Annotated[int, Field(ge=1, le=65_535)] = 1024
    """Requests that an endpoint may have at once; beyond it the client is told to come again."""
    keepalive_s: Seconds = 15.0
    dns_ttl_s: Seconds = 10.0
