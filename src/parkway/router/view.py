"""What the router knows of the endpoints right now, in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from parkway.router.endpoint import Endpoint


class View:
    """All endpoints by model. `load` replaces them; nothing here reads the store.

    A model whose endpoints are all down is still a model: its callers learn that it is unavailable, not unknown.
    """

    def __init__(self, endpoints: Iterable[Endpoint] = ()) -> None:
        self._by_model: dict[str, tuple[Endpoint, ...]] = {}
        self._upstream: dict[str, tuple[str, ...]] = {}
        self._listeners: list[Callable[[], None]] = []
        self.load(endpoints)

    def load(self, endpoints: Iterable[Endpoint]) -> None:
        """Replaces everything known, then tells the listeners."""
        by_model: dict[str, list[Endpoint]] = {}
        for endpoint in sorted(endpoints, key=lambda endpoint: endpoint.endpoint_id):
            by_model.setdefault(endpoint.model, []).append(endpoint)
        self._by_model = {model: tuple(by_model[model]) for model in sorted(by_model)}
        self._upstream = {
            model: tuple(sorted({endpoint.upstream_model for endpoint in found})) for model, found in by_model.items()
        }
        for listener in self._listeners:
            listener()

    def models(self) -> list[str]:
        """The names of all models, sorted."""
        return list(self._by_model)

    def endpoints(self, model: str) -> Sequence[Endpoint]:
        """The endpoints of `model` in any state, sorted by id; empty where the model is unknown."""
        return self._by_model.get(model, ())

    def upstream_models(self, model: str) -> Sequence[str]:
        """By which names the endpoints of `model` know it, sorted, each once; empty where the model is unknown."""
        return self._upstream.get(model, ())

    def all(self) -> list[Endpoint]:
        """Every endpoint of every model."""
        return [endpoint for endpoints in self._by_model.values() for endpoint in endpoints]

    def subscribe(self, listener: Callable[[], None]) -> None:
        """Calls `listener` after every later `load`."""
        self._listeners.append(listener)
