"""An endpoint: one HTTP address that serves one model in the OpenAI protocol."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from parkway.core.errors import InvalidRequest

EndpointState = Literal["ready", "draining", "down", "asleep"]
EndpointSource = Literal["config", "local", "api"]

MAX_WEIGHT = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where a model is served, and how to speak to it.

    Args:
        endpoint_id: Unique over all models; what people read in logs and statistics.
        model: The name that clients ask for.
        url: The address before `/chat/completions`, as every OpenAI client takes it: `http://10.0.0.7:8000/v1`.
        upstream_model: The name under which the endpoint itself knows the model.
        weight: Its share of the requests, relative to the model's other endpoints.
        state: `ready` takes requests, `draining` finishes those that it has, `down` is known and gone for now, `asleep`
            is ready some time after somebody has asked for it.
        api_key_env: The environment variable that holds the endpoint's key. The key itself is stored nowhere.
        source: Who registered it: the configuration file, the supervisor of local engines, or the API.

    Raises:
        InvalidRequest: A value cannot work; `param` names it.
    """

    endpoint_id: str
    model: str
    url: str
    upstream_model: str
    weight: int = 1
    state: EndpointState = "ready"
    api_key_env: str | None = None
    source: EndpointSource = "config"

    def __post_init__(self) -> None:
        if not 1 <= self.weight <= MAX_WEIGHT:
            raise self._invalid("weight", f"is {self.weight}; give an integer from 1 to {MAX_WEIGHT}")
        for name in ("endpoint_id", "model", "upstream_model"):
            if not getattr(self, name):
                raise self._invalid(name, "is empty")
        try:
            parts = urlsplit(self.url)
            has_port_in_range = parts.port != 0
        except ValueError as error:
            raise self._invalid("url", f"is {self.url!r}: {error}") from error
        if not self.url.isprintable() or " " in self.url:
            raise self._invalid("url", f"is {self.url!r}; it has spaces or control characters in it")
        if parts.scheme not in ("http", "https") or not parts.hostname or not has_port_in_range:
            raise self._invalid("url", f"is {self.url!r}; give one such as http://10.0.0.7:8000/v1")
        if parts.username is not None or parts.query or parts.fragment:
            # Not shown with its value: what stands before the @ is a secret.
            raise self._invalid(
                "url", "has credentials, a query or a fragment; keep to the address and put a key into `api_key_env`"
            )

    @property
    def base(self) -> str:
        """The url without a slash at its end, ready for `/chat/completions`."""
        return self.url.rstrip("/")

    def _invalid(self, param: str, fault: str) -> InvalidRequest:
        return InvalidRequest(f"endpoint {self.endpoint_id!r}: `{param}` {fault}", param=param)
