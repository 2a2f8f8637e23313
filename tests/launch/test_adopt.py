"""The audit log sees what etcd changes of the endpoints."""

from __future__ import annotations

from typing import Any

from parkway.launch.gateway import _adopt
from parkway.router.endpoint import Endpoint
from parkway.router.view import View


class Noted:
    def __init__(self) -> None:
        self.details: list[str] = []

    def administer(self, action: str, detail: str, *, actor: str) -> None:
        assert (action, actor) == ("registry.change", "etcd")
        self.details.append(detail)


def endpoint(name: str, **fields: Any) -> Endpoint:
    return Endpoint(**{"endpoint_id": name, "model": "m", "url": "http://a", "upstream_model": "m", **fields})


def test_each_change_is_noted_once_and_how_an_endpoint_does_is_none() -> None:
    view, noted = View(), Noted()

    def adopt(*endpoints: Endpoint) -> None:
        _adopt(view, noted, list(endpoints))  # pyright: ignore[reportArgumentType]

    adopt(endpoint("a"), endpoint("b"))
    adopt(endpoint("a", state="draining"), endpoint("b"))
    assert view.endpoints("m")[0].state == "draining"
    adopt(endpoint("a", url="http://evil"), endpoint("c"))
    assert noted.details == ["new: a, b", "new: c; gone: b; changed: a"]
