"""How requests are admitted: classes, tiers, the bounds of queues, concurrency."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import ConfigDict, Field, StringConstraints, model_validator

from parkway.core.configuration import Section

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,31}$")]
Weight = Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)]
Tokens = Annotated[int, Field(ge=1, le=1_000_000_000)]
Requests = Annotated[int, Field(ge=1, le=100_000)]


class PriorityClass(Section):
    """A class of requests.

    Attributes:
        weight: Its share of a busy model, relative to the other classes that wait.
        max_wait_s: The longest that a request of it may wait for its turn.
    """

    weight: Weight = 1.0
    max_wait_s: Annotated[float, Field(gt=0, le=86_400)] = 60.0


BUILT_IN_CLASSES: Mapping[str, PriorityClass] = {
    "interactive": PriorityClass(weight=16, max_wait_s=20),
    "standard": PriorityClass(weight=4, max_wait_s=60),
    "batch": PriorityClass(weight=1, max_wait_s=600),
}
"""Of an installation that configures none, most urgent first."""


class Tier(Section):
    """What the keys of a tier get.

    Attributes:
        class_: The class of their requests, `class` in the file; a request may lower it and never raise it.
        weight: The share of each key, relative to the other keys of its class.
        max_output_tokens: The longest answer; a request that asks for more gets this.
        max_prompt_tokens: The longest prompt, as estimated; a longer one is refused.
        max_queue_requests: How many requests of one key may wait for one model.
    """

    model_config = ConfigDict(validate_by_name=True)  # the processes of Parkway hand it on so

    class_: Annotated[Name | None, Field(alias="class")] = None
    weight: Weight = 1.0
    max_output_tokens: Tokens | None = None
    max_prompt_tokens: Tokens | None = None
    max_queue_requests: Requests | None = None


class GateConfig(Section):
    """The gate of a model.

    Attributes:
        max_concurrency: Requests that its endpoints work on at one moment, all together. Without it the sum of what
            they are known to take; where that is not known, it is found out.
        max_queue_requests, max_queue_tokens: What may wait for the model.
        max_key_queue_requests, max_key_queue_tokens: What may wait for it of one key.
    """

    max_concurrency: Requests | None = None
    max_queue_requests: Requests = 1024
    max_queue_tokens: Tokens = 8_000_000
    max_key_queue_requests: Requests = 256
    max_key_queue_tokens: Tokens = 4_000_000


class AdmissionConfig(GateConfig):
    """Who is answered when, where more is asked than can be answered at once.

    Attributes:
        enabled: Without it nobody waits: every request goes to an endpoint at once. Tiers are in force all the same.
        classes: Most urgent first; without any, `BUILT_IN_CLASSES`.
        default_class: Of keys whose tier names none.
        tiers: By the name that keys carry.
        default_tier: Of keys that carry none, or one that is not configured; without it nothing is capped.
        initial_concurrency: Where nothing is known of a model's endpoints, the search begins with this.
        gateways: How many Parkways share the endpoints; each admits its part.
    """

    enabled: bool = True
    classes: Annotated[dict[Name, PriorityClass], Field(max_length=16)] = {}
    default_class: Name = "standard"
    tiers: Annotated[dict[Name, Tier], Field(max_length=100)] = {}
    default_tier: Name | None = None
    initial_concurrency: Requests = 32
    gateways: Annotated[int, Field(ge=1, le=1000)] = 1

    @property
    def known_classes(self) -> Mapping[str, PriorityClass]:
        """The classes in force, most urgent first."""
        return self.classes or BUILT_IN_CLASSES

    @model_validator(mode="after")
    def _classes_exist(self) -> AdmissionConfig:
        known = self.known_classes
        wanted = {"default_class": self.default_class}
        wanted |= {f"tiers.{name}.class": tier.class_ for name, tier in self.tiers.items() if tier.class_ is not None}
        for key, name in wanted.items():
            if name not in known:
                raise ValueError(f"`{key}`: there is no class {name!r}; the classes are {', '.join(known)}")
        if self.default_tier is not None and self.default_tier not in self.tiers:
            raise ValueError(f"`default_tier`: there is no tier {self.default_tier!r} in `tiers`")
        return self

    def of_model(self, own: GateConfig) -> GateConfig:
        """The gate of a model that differs from the others as `own` says."""
        given = {key: getattr(own, key) for key in own.model_fields_set}
        return GateConfig(**{key: getattr(self, key) for key in GateConfig.model_fields} | given)
