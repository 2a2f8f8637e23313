"""What an endpoint refuses to be."""

from __future__ import annotations

import pytest

from parkway.core.errors import InvalidRequest
from parkway.router.endpoint import Endpoint


def endpoint(**changes: object) -> Endpoint:
    values = {"endpoint_id": "e1", "model": "m", "url": "http://h:1/v1", "upstream_model": "m", **changes}
    return Endpoint(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "url",
    ["http://10.0.0.7:8000/v1", "https://api.example.com/v1/", "http://[::1]:8000/v1", "http://localhost"],
)
def test_addresses_as_people_write_them(url: str) -> None:
    assert endpoint(url=url).base == url.rstrip("/")


@pytest.mark.parametrize(
    "url",
    ["", "h:1/v1", "ftp://h/v1", "http://", "http://h:0/v1", "http://h:99999/v1", "http://h:x/v1", "http://a b/v1",
     "http://h/v1\r\nx: y", "http://h/v1?a=1", "http://h/v1#a", "http://[::1/v1"],
)  # fmt: skip
def test_addresses_that_cannot_work_are_refused(url: str) -> None:
    with pytest.raises(InvalidRequest, match="endpoint 'e1': `url`") as caught:
        endpoint(url=url)
    assert caught.value.param == "url"


def test_a_password_in_the_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(InvalidRequest, match="api_key_env") as caught:
        endpoint(url="http://user:hunter2@h/v1")
    assert "hunter2" not in caught.value.message


@pytest.mark.parametrize(("name", "value"), [("weight", 0), ("weight", 10_001), ("model", ""), ("upstream_model", "")])
def test_other_values_that_cannot_work(name: str, value: object) -> None:
    with pytest.raises(InvalidRequest) as caught:
        endpoint(**{name: value})
    assert caught.value.param == name
