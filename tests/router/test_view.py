"""The live view of the endpoints."""

from __future__ import annotations

from parkway.router.endpoint import Endpoint
from parkway.router.view import View


def endpoint(endpoint_id: str, model: str, **changes: object) -> Endpoint:
    values = {"endpoint_id": endpoint_id, "model": model, "url": "http://h/v1", "upstream_model": model, **changes}
    return Endpoint(**values)  # type: ignore[arg-type]


def test_models_and_endpoints_come_sorted() -> None:
    view = View([endpoint("2", "b"), endpoint("3", "a"), endpoint("1", "b", state="down")])
    assert view.models() == ["a", "b"]
    assert [each.endpoint_id for each in view.endpoints("b")] == ["1", "2"]
    assert list(view.endpoints("c")) == []
    assert [each.endpoint_id for each in view.all()] == ["3", "1", "2"]


def test_load_replaces_everything_and_tells_the_listeners() -> None:
    view = View([endpoint("1", "a")])
    seen: list[list[str]] = []
    view.subscribe(lambda: seen.append(view.models()))
    view.load([endpoint("2", "b")])
    view.load([])
    assert seen == [["b"], []]
