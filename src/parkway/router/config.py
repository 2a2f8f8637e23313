"""The router's configuration."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from parkway.core.configuration import Section
from parkway.store.config import EtcdConfig

Seconds = Annotated[float, Field(gt=0, le=3600)]
Times = Annotated[int, Field(ge=1, le=100)]
Share = Annotated[float, Field(ge=0, le=1)]

Balance = Literal[
    "least_outstanding", "weighted_round_robin", "power_of_two_choices", "latency_aware", "prefix_affinity"
]


class BreakerConfig(Section):
    """When live requests that fail stop further ones, and when one may try again."""

    failures: Times = 5
    """So many requests failed in a row."""
    failure_share: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Or this share of the requests of `window_s`, if they were at least `requests`."""
    window_s: Seconds = 10.0
    requests: Annotated[int, Field(ge=1, le=100_000)] = 20
    retry_s: Seconds = 5.0
    """After this one request is let through; its end decides."""
    slow_s: Seconds = 30.0
    """A request that met its deadline counts as failed only if it had waited this long: clients choose deadlines."""
    max_rest_s: Seconds = 60.0
    """The longest rest that a 429 with `Retry-After` gives an endpoint."""


class OutlierConfig(Section):
    """When an endpoint is taken out because it does far worse than the others of its model."""

    interval_s: Seconds = 5.0
    requests: Annotated[int, Field(ge=1, le=100_000)] = 20
    """An endpoint with fewer in `breaker.window_s` is not judged."""
    failure_margin: Annotated[float, Field(gt=0, le=1)] = 0.3
    """Its share of failures is this much above the median of its peers."""
    slow_times: Annotated[float, Field(gt=1, le=1000)] | None = None
    """Or it takes so many times as long to answer as they do in the median. Off unless set: prompts differ."""
    eject_s: Seconds = 10.0
    """The first time for this long, the second for twice as long, and so on."""
    max_eject_s: Seconds = 300.0
    max_share: Share = 0.5
    """Never more than this share of a model's endpoints, but always one where there are two."""


class RetryConfig(Section):
    """How many retries there may be, of all requests of a model together."""

    share: Share = 0.2
    """Of the requests of the last `window_s`."""
    min_per_s: Annotated[float, Field(ge=0, le=10_000)] = 10.0
    """And so many more, for quiet times."""
    window_s: Seconds = 10.0
    max_pause_s: Annotated[float, Field(ge=0, le=60)] = 1.0
    """The wait before a retry grows from `retry_pause_s` up to this."""


class HedgeConfig(Section):
    """When a second endpoint is asked because the first is late."""

    after_s: Seconds | None = None
    after_percentile: Annotated[float, Field(ge=50, lt=100)] | None = None
    """After the time within which this many of 100 recent answers of the model had begun."""
    max_share: Annotated[float, Field(gt=0, le=1)] = 0.05
    """Of the requests of `retries.window_s`."""

    @model_validator(mode="after")
    def _one_time(self) -> HedgeConfig:
        if (self.after_s is None) == (self.after_percentile is None):
            raise ValueError("exactly one of `after_s` and `after_percentile` is needed")
        return self


class AffinityConfig(Section):
    """How `prefix_affinity` knows conversations, and how far it may go for their sake."""

    block_bytes: Annotated[int, Field(ge=16, le=65_536)] = 512
    """Beginnings are compared in steps of this size."""
    max_blocks: Annotated[int, Field(ge=1, le=1024)] = 64
    load_factor: Annotated[float, Field(gt=1, le=100)] = 1.25
    """No endpoint gets more than so many times the mean number of requests in flight."""
    remembered: Annotated[int, Field(ge=1, le=10_000_000)] = 65_536
    """Beginnings of one model whose endpoint is remembered; the oldest goes first."""


class RouterConfig(Section):
    """How requests are spread over endpoints, and what happens when one fails."""

    balance: Balance = "least_outstanding"
    affinity: AffinityConfig = AffinityConfig()

    health_interval_s: Seconds = 5.0
    health_timeout_s: Seconds = 2.0
    failures_to_eject: Times = 3
    """So many failed health checks in a row, and an endpoint gets no requests until it passes again."""
    successes_to_restore: Times = 1
    breaker: BreakerConfig = BreakerConfig()
    outliers: OutlierConfig = OutlierConfig()

    connect_timeout_s: Seconds = 2.0
    max_attempts: Annotated[int, Field(ge=1, le=10)] = 3
    """The first attempt counts: 1 means no retries."""
    retry_pause_s: Annotated[float, Field(ge=0, le=10)] = 0.1
    """The longest wait before the first retry that waits at all; doubled for each that follows."""
    retries: RetryConfig = RetryConfig()
    hedge: HedgeConfig | None = None
    fall_back_on_long_context: bool = False
    """Whether `fallbacks` are also asked when a request is too long for the model."""

    connections_per_endpoint: Annotated[int, Field(ge=1, le=65_535)] = 1024
    """Requests that an endpoint may have at once; beyond it the client is told to come again."""
    keepalive_s: Seconds = 15.0
    dns_ttl_s: Seconds = 10.0


class RegistryConfig(EtcdConfig):
    """Where endpoints are registered: in the store, or, where `etcd` has addresses, there."""

    prefix: Annotated[str, Field(pattern=r"^/[A-Za-z0-9._/-]{1,200}$")] = "/parkway"
    """Of the keys. Parkways that share it share their endpoints."""
    lease_s: Annotated[float, Field(ge=2, le=3600)] = 10.0
    """A Parkway that has said nothing for so long is dead, and its endpoints are gone."""
    grace_s: Annotated[float, Field(ge=0, le=86_400)] = 30.0
    """How long endpoints stay that are missing after etcd was away or has lost its data."""
