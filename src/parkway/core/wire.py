"""Bytes to typed requests, with errors that name the field, the value and what would be right."""

from __future__ import annotations

import functools
import re
from typing import Any, TypeVar

import msgspec

from parkway.core.errors import InvalidRequest, MalformedJSON

T = TypeVar("T")

_AT = re.compile(r" - at `(key in )?\$(?P<path>[^`]*)`$")
_INDEX = re.compile(r"\[(\d+|\.\.\.)\]")

encode = msgspec.json.Encoder().encode


@functools.cache
def _decoder(cls: type[Any]) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(cls)


def decode(body: bytes, cls: type[T]) -> T:
    """Decodes a JSON request body as `cls`.

    Raises:
        MalformedJSON: `body` is not JSON; the message says where.
        InvalidRequest: A field has the wrong type or is out of range; `param` names it.
    """
    try:
        return _decoder(cls).decode(body)
    except msgspec.ValidationError as error:
        raise _invalid(str(error), body) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        if not body:
            raise MalformedJSON("the request has no body; send a JSON object") from error
        raise MalformedJSON(f"the body is not JSON: {error}") from error
    except RecursionError as error:
        raise MalformedJSON("the body is nested too deeply; send a flatter JSON object") from error


def fields_of(body: bytes) -> dict[str, msgspec.Raw]:
    """The top-level fields of a JSON object as undecoded bytes: to change a few and relay the rest as it came."""
    return decode(body, dict[str, msgspec.Raw])


def _invalid(message: str, body: bytes) -> InvalidRequest:
    match = _AT.search(message)
    if match is None:
        what, path = message, ""
    else:
        what, path = message[: match.start()], _INDEX.sub(r".\1", match["path"]).lstrip(".")
    if missing := re.search(r"required field `([^`]+)`", what):
        param = f"{path}.{missing.group(1)}".lstrip(".")
        return InvalidRequest(f"`{param}` is missing; it is required", param=param)
    if unknown := re.search(r"unknown field `([^`]+)`", what):
        param = f"{path}.{unknown.group(1)}".lstrip(".")
        return InvalidRequest(f"`{param}`: unknown field; remove it or correct its name", param=param)
    if not path:
        return InvalidRequest(f"the body: {what[:1].lower()}{what[1:]}")
    value = _value_at(body, path)
    got = f", got {value}" if value and "got `" not in what else (f" ({value})" if value else "")
    return InvalidRequest(f"`{path}`: {what[:1].lower()}{what[1:]}{got}", param=path)


def _value_at(body: bytes, path: str) -> str:
    """The offending value as short JSON; empty where it cannot be shown."""
    try:
        value: Any = msgspec.json.decode(body)
        for part in path.split("."):
            value = value[int(part) if part.isdigit() else part]
    except (msgspec.DecodeError, KeyError, IndexError, ValueError, TypeError, RecursionError):
        return ""
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= 60 else text[:57] + "..."
