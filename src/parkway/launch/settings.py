"""The whole configuration: every part's section put together, and the models that are served."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, StringConstraints, ValidationError, field_validator, model_validator

from parkway.aggregate.config import ConversationConfig, ResponsesConfig
from parkway.aggregate.grounding.config import EXTRACTIVE, GroundingConfig, ModelGrounding
from parkway.aggregate.response_cache.config import ResponseCacheConfig
from parkway.core.configuration import Section, load
from parkway.core.errors import ConfigurationError, nearest
from parkway.engine.config import MAX_ADAPTERS, AdapterName, EngineConfig
from parkway.feedback.config import FeedbackConfig
from parkway.feedback.otlp import Exporter
from parkway.feedback.traces import TracesConfig
from parkway.gateway.config import GatewayConfig
from parkway.pipeline.bounds import Bounds
from parkway.policy.audit import AuditConfig
from parkway.policy.budgets import BudgetConfig, check
from parkway.policy.config import PermissionsConfig
from parkway.policy.guardrails.config import GuardrailList
from parkway.policy.issuers import IdentityConfig
from parkway.policy.limits import LimitsConfig
from parkway.policy.prices import Price
from parkway.retrieval.config import CollectionConfig, CollectionName
from parkway.router.admission.config import AdmissionConfig, GateConfig, Requests, Tokens
from parkway.router.config import Balance, RegistryConfig, RouterConfig
from parkway.store.config import StoreConfig
from parkway.store.home import Home
from parkway.store.models import pulled_directory
from parkway.store.redis import RedisConfig

FILE_NAME = "parkway.yaml"
BUILT_IN = ("park-mini", "park-embed")
"""Models that come with the package. As a `path` the name stands for the model's own directory."""

MAX_FALLBACKS = 8

KEEP_ALIVE_S = 300.0
"""How long an idle model stays loaded unless its entry says something else."""

ModelName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:/-]{1,128}$")]
VariableName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class EngineDefaults(EngineConfig):
    """How engines run. Which model an engine has, and where it listens, is for `models` and the supervisor."""

    model: str = ""

    @model_validator(mode="after")
    def _not_of_one_engine(self) -> EngineDefaults:
        if given := self.model_fields_set & {"model", "name", "host", "port", "adapters"}:
            raise ValueError(f"`{min(given)}` does not belong here; list what is served under `models`")
        return self


class Accepts(Section):
    """Which prompts are sent to an endpoint, by their estimated length; both ends are included."""

    min_prompt_tokens: Annotated[int, Field(ge=0, le=1_000_000_000)] = 0
    max_prompt_tokens: Tokens | None = None

    @model_validator(mode="after")
    def _not_empty(self) -> Accepts:
        if self.max_prompt_tokens is not None and self.max_prompt_tokens < self.min_prompt_tokens:
            raise ValueError("`max_prompt_tokens` is below `min_prompt_tokens`: nothing would be sent there")
        return self


class EndpointConfig(Section):
    """One place that serves a model: a directory on this machine, or the URL of an OpenAI-compatible server.

    Attributes:
        path: A model directory, or the name of a built-in or a pulled model. Parkway runs an engine for it.
        url: What an OpenAI client takes as its base URL. Without a path in it, `/v1` is added.
        model: The name under which the server at `url` knows the model; by default the name that clients use.
        api_key_env: The environment variable that holds the key for `url`.
        weight: Its share of the requests, relative to the model's other endpoints.
        replicas: How many engines run for `path`.
        max_concurrency: Requests that the server at `url` works on at one moment; found out where it is not given.
        accepts: The prompts that are sent there, where a model keeps long ones apart.
        engine: Where they differ from the section `engine`.
        adapters: LoRA adapters that each of them holds: name -> directory. Clients call them `MODEL:NAME`.
    """

    path: str | None = None
    url: str | None = None
    model: Annotated[str, StringConstraints(min_length=1, max_length=256)] | None = None
    api_key_env: VariableName | None = None
    weight: Annotated[int, Field(ge=1, le=10_000)] = 1
    replicas: Annotated[int, Field(ge=1, le=64)] = 1
    max_concurrency: Requests | None = None
    accepts: Accepts = Accepts()
    engine: EngineDefaults = EngineDefaults()
    adapters: Annotated[dict[AdapterName, str], Field(max_length=MAX_ADAPTERS)] = {}

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        """A bare string is a URL if it looks like one, else a directory."""
        if isinstance(value, str):
            return {"url": value} if value.startswith(("http://", "https://")) else {"path": value}
        return value

    @field_validator("url")
    @classmethod
    def _base_url(cls, url: str | None) -> str | None:
        if url is None:
            return None
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("not an http:// or https:// URL with a host")
        if parts.query or parts.fragment or parts.username:
            raise ValueError("a base URL has no user, query or fragment; a key belongs into `api_key_env`")
        return url.rstrip("/") + ("" if parts.path.strip("/") else "/v1")

    @model_validator(mode="after")
    def _one_place(self) -> EndpointConfig:
        places = [name for name in self._places() if getattr(self, name)]
        if len(places) != 1:
            wanted = ", ".join(f"`{name}`" for name in self._places())
            raise ValueError(f"exactly one of {wanted} is needed")
        if places != ["url"] and (self.model or self.api_key_env):
            raise ValueError("`model` and `api_key_env` belong to a `url`")
        if places != ["path"] and self.replicas != 1:
            raise ValueError("`replicas` belongs to a `path`; list several `endpoints` instead")
        if places == ["endpoints"] and (self.weight != 1 or self.adapters or self.engine.model_fields_set):
            raise ValueError("`weight`, `engine` and `adapters` belong to each of the `endpoints`")
        if places == ["endpoints"] and (self.max_concurrency is not None or self.accepts != Accepts()):
            raise ValueError("`max_concurrency` and `accepts` belong to each of the `endpoints`")
        if places == ["path"] and self.max_concurrency is not None:
            raise ValueError("`max_concurrency` belongs to a `url`; an engine of Parkway takes `engine.max_sequences`")
        if places == ["url"] and self.engine.model_fields_set:
            raise ValueError("`engine` belongs to a `path`; another server has settings of its own")
        if places == ["url"] and self.adapters:
            raise ValueError("`adapters` belong to a `path`; one that another server has is a model of its own here")
        return self

    @classmethod
    def _places(cls) -> tuple[str, ...]:
        return ("path", "url")


class ModelConfig(EndpointConfig):
    """Where a model is served: one place, or several `endpoints`.

    Attributes:
        load: When its engine runs: from the `start` on, or `on_demand`: from the first request until it is idle.
        balance: How requests are spread over its endpoints, if not as `router.balance` says.
        fallbacks: Models that answer in its place when no endpoint of it can, the first of them first; then theirs.
        keep_alive_s: How long an `on_demand` model stays loaded after its last use; `KEEP_ALIVE_S` unless given.
        admission: Where its gate differs from the section `admission`.
        price: What its tokens cost, for budgets in money and for the log.
        grounding: Where answers from documents differ from the section `grounding`.
    """

    endpoints: list[EndpointConfig] = []
    load: Literal["start", "on_demand"] = "start"
    keep_alive_s: Annotated[float, Field(ge=0, le=31_536_000)] | None = None
    balance: Balance | None = None
    fallbacks: Annotated[list[ModelName], Field(max_length=MAX_FALLBACKS)] = []
    admission: GateConfig = GateConfig()
    price: Price | None = None
    grounding: ModelGrounding = ModelGrounding()

    @model_validator(mode="after")
    def _loadable(self) -> ModelConfig:
        if self.load == "on_demand" and (not self.path or self.replicas != 1):
            raise ValueError("`load: on_demand` belongs to a model with one `path` and one replica")
        if self.load == "start" and self.keep_alive_s is not None:
            raise ValueError("`keep_alive_s` belongs to `load: on_demand`; what is loaded at the start stays loaded")
        return self

    @classmethod
    def _places(cls) -> tuple[str, ...]:
        return ("path", "url", "endpoints")

    def all(self) -> list[EndpointConfig]:
        """Every place, also where there is only one."""
        return list(self.endpoints) or [self]


def _built_in_models() -> dict[str, ModelConfig]:
    return {name: ModelConfig(path=name) for name in BUILT_IN}


class Settings(Section):
    """`parkway.yaml`. Everything has a default that works; without `models` the built-in ones are served.

    Attributes:
        knowledge: Collections of documents, by name; others are added while Parkway runs.
        guardrails: Checks on what goes in and what comes out, in order; without any nothing is looked at.
        start_timeout_s: An engine that does not serve after this long is started again.
        liveness_s: A gateway or an engine that runs but has not answered for this long is started again.
        memory_bytes: For all engines of this machine together; by default most of what the process may use.
        pulled_models: Whether pulled models that `models` does not mention are served too, on demand.
        knowledge_partitions: How many processes share the documents of all collections; fixed once there are some.
        knowledge_replicas: How many more processes answer searches beside the first of those.
    """

    gateway: GatewayConfig = GatewayConfig()
    bounds: Bounds = Bounds()
    identity: IdentityConfig = IdentityConfig()
    permissions: PermissionsConfig = PermissionsConfig()
    limits: LimitsConfig = LimitsConfig()
    admission: AdmissionConfig = AdmissionConfig()
    budgets: list[BudgetConfig] = []
    router: RouterConfig = RouterConfig()
    registry: RegistryConfig = RegistryConfig()
    store: StoreConfig = StoreConfig()
    redis: RedisConfig = RedisConfig()
    conversations: ConversationConfig = ConversationConfig()
    responses: ResponsesConfig = ResponsesConfig()
    response_cache: ResponseCacheConfig = ResponseCacheConfig()
    grounding: GroundingConfig = GroundingConfig()
    feedback: FeedbackConfig = FeedbackConfig()
    guardrails: GuardrailList = []
    knowledge: Annotated[dict[CollectionName, CollectionConfig], Field(max_length=1024)] = {}
    audit: AuditConfig = AuditConfig()
    traces: TracesConfig = TracesConfig()
    engine: EngineDefaults = EngineDefaults()
    models: dict[ModelName, ModelConfig] = Field(default_factory=_built_in_models)
    start_timeout_s: Annotated[float, Field(gt=0, le=86_400)] = 600.0
    liveness_s: Annotated[float, Field(gt=0, le=86_400)] = 30.0
    memory_bytes: Annotated[int, Field(ge=1)] | None = None
    pulled_models: bool = True
    knowledge_partitions: Annotated[int, Field(ge=1, le=64)] = 1
    knowledge_replicas: Annotated[int, Field(ge=0, le=16)] = 0

    @model_validator(mode="after")
    def _engines_possible(self) -> Settings:
        for name, model in self.models.items():
            for place in model.all():
                try:
                    self.engine_of(place)
                except ValidationError as error:
                    reason = error.errors()[0]["msg"].removeprefix("Value error, ")
                    raise ValueError(f"models.{name}.engine: together with `engine`: {reason}") from error
        return self

    @model_validator(mode="after")
    def _fallbacks_possible(self) -> Settings:
        known = [*self.models, *self.adapted_models()]
        for name, model in self.models.items():
            for other in model.fallbacks:
                if other not in known and not (self.pulled_models and pulled_directory(other)):
                    hint = nearest(other, known) or f" Known models: {', '.join(known)}."
                    raise ValueError(f"models.{name}.fallbacks: there is no model {other!r}.{hint}")
            if (circle := self._circle(name)) is not None:
                raise ValueError(f"models.{name}.fallbacks: {' -> '.join(circle)} is a circle; end it somewhere")
        return self

    def _circle(self, name: str) -> list[str] | None:
        """A way from `name` over fallbacks back to `name`; None where there is none."""
        ways, seen = [[name]], set[str]()
        while ways:
            way = ways.pop()
            for other in self._direct_fallbacks(way[-1]):
                if other == name:
                    return [*way, other]
                if other not in seen:
                    seen.add(other)
                    ways.append([*way, other])
        return None

    def _direct_fallbacks(self, name: str) -> list[str]:
        return self.models[name].fallbacks if name in self.models else []

    def fallbacks(self) -> dict[str, list[str]]:
        """For each model that has any: all that may answer in its place, each once, in the order of asking."""

        def behind(name: str, found: list[str]) -> list[str]:
            for other in self._direct_fallbacks(name):
                if other not in found:
                    found.append(other)
                    behind(other, found)
            return found

        return {name: behind(name, []) for name, model in self.models.items() if model.fallbacks}

    def balance(self) -> Mapping[str, Balance]:
        """How the models that say so themselves are balanced, those with an adapter like the ones they belong to."""
        own: dict[str, Balance] = {}
        for name, model in self.models.items():
            if model.balance is not None:
                own[name] = model.balance
        own.update({name: own[base] for name, base in self.adapted_models().items() if base in own})
        return own

    @model_validator(mode="after")
    def _budgets_possible(self) -> Settings:
        check(self.budgets)
        if any(budget.usd is not None for budget in self.budgets) and not self.prices():
            raise ValueError("budgets: `usd` needs the price of a model; give it as `models.NAME.price`")
        return self

    @model_validator(mode="after")
    def _caches_somewhere(self) -> Settings:
        if self.response_cache.place == "redis" and not self.redis.configured:
            raise ValueError("response_cache.place: there is no Redis; set `redis.url` or `redis.url_env`, or `memory`")
        return self

    @classmethod
    def find(cls, config: Path | None = None) -> Settings:
        """Reads `config`, or `parkway.yaml` in the working directory if there is one, or takes the defaults.

        Model directories become absolute: in the file they are relative to the file.

        Raises:
            ConfigurationError: The file cannot be read or is wrong; the message names file, line and key.
        """
        path = config or Path(FILE_NAME)
        if config is None and not path.exists():
            return cls()
        return load(path, cls)._anchored(path.resolve().parent)

    def engine_of(self, place: EndpointConfig) -> EngineConfig:
        """How the engines of one place run: as the section `engine` says, but for what the place says itself."""
        own = {key: getattr(place.engine, key) for key in place.engine.model_fields_set}
        return EngineDefaults(**{key: getattr(self.engine, key) for key in self.engine.model_fields_set} | own)

    def models_at_start(self) -> list[str]:
        """The models for which engines run on this machine from the start on."""
        return [
            name
            for name, model in self.models.items()
            if model.load == "start" and any(place.path for place in model.all())
        ]

    def models_on_demand(self) -> dict[str, ModelConfig]:
        """The models that are loaded when they are asked for."""
        return {name: model for name, model in self.models.items() if model.load == "on_demand"}

    def adapted_models(self) -> dict[str, str]:
        """The models that are another one with an adapter, `NAME:ADAPTER`, each with the name of that other one."""
        return {
            f"{name}:{adapter}": name
            for name, model in self.models.items()
            for place in model.all()
            for adapter in place.adapters
        }

    def grounded_models(self) -> dict[str, ModelGrounding]:
        """How the models are grounded that say so themselves, or are small ones under another name."""
        own = {name: model.grounding for name, model in self.models.items()}
        for name, model in self.models.items():
            if own[name].tier is None and any(place.path in EXTRACTIVE for place in model.all()):
                tier = "links" if self.grounding.tier == "links" else "extractive"
                own[name] = own[name].model_copy(update={"tier": tier})
        return {name: grounding for name, grounding in own.items() if grounding != ModelGrounding()}

    def prices(self) -> dict[str, Price]:
        """What models cost, by name; an adapted model costs what its base costs."""
        prices = {name: model.price for name, model in self.models.items() if model.price is not None}
        adapted = {name: prices[base] for name, base in self.adapted_models().items() if base in prices}
        return {**adapted, **prices}

    def publisher(self, home: Home) -> str:
        """Under which name endpoints are published: that of the home where others may publish too, else none.

        Raises:
            StartupError: The home cannot be written to.
        """
        return home.publisher() if self.store.url or self.registry.etcd else ""

    def check_environment(self, environment: Mapping[str, str] = os.environ) -> None:
        """Sees that every key that names an environment variable names one that is set.

        Raises:
            ConfigurationError: One is not; the message names the key and the variable.
            StartupError: What `traces.otlp_endpoint` needs is not installed.
        """
        Exporter.of(self.traces, environment)
        if (variable := self.registry.password_env) and variable not in environment:
            raise ConfigurationError(
                f"registry.password_env: the environment variable {variable} is not set; set it before `parkway up`"
            )
        for issuer in self.identity.issuers:
            issuer.secret(environment)
        for name, collection in self.knowledge.items():
            try:
                collection.check_environment(environment)
            except ConfigurationError as error:
                raise ConfigurationError(f"knowledge.{name}.{error.message}") from error
        for name, model in self.models.items():
            for place in model.all():
                if place.api_key_env and not environment.get(place.api_key_env):
                    raise ConfigurationError(
                        f"models.{name}.api_key_env: the environment variable {place.api_key_env} is not set; "
                        f"set it before `parkway up`, or remove the key"
                    )

    def _anchored(self, folder: Path) -> Settings:
        """The same with every directory of a model or an adapter, and the audit key, absolute: relative to `folder`."""

        def anchor(place: EndpointConfig) -> dict[str, Any]:
            if place.path is None:
                return {}
            adapters = {name: str(folder / Path(each).expanduser()) for name, each in place.adapters.items()}
            anchored: dict[str, Any] = {"adapters": adapters} if adapters else {}
            if place.path not in BUILT_IN:
                anchored["path"] = str(pulled_directory(place.path) or folder / Path(place.path).expanduser())
            return anchored

        models = {
            name: model.model_copy(
                update={
                    **anchor(model),
                    "endpoints": [place.model_copy(update=anchor(place)) for place in model.endpoints],
                }
            )
            for name, model in self.models.items()
        }
        updates: dict[str, Any] = {"models": models}
        updates["knowledge"] = {name: collection.anchored(folder) for name, collection in self.knowledge.items()}
        if self.audit.key_file is not None:
            key_file = str(folder / Path(self.audit.key_file).expanduser())
            updates["audit"] = self.audit.model_copy(update={"key_file": key_file})
        if self.permissions.file is not None:
            file = str(folder / Path(self.permissions.file).expanduser())
            updates["permissions"] = self.permissions.model_copy(update={"file": file})
        return self.model_copy(update=updates)
