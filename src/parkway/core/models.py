"""`/v1/models`: the models that the caller may name."""

from __future__ import annotations

from typing import Literal

import msgspec


class Model(msgspec.Struct, kw_only=True):
    """`created` is in seconds since 1970."""

    id: str
    created: int
    owned_by: str = "parkway"
    object: Literal["model"] = "model"


class ModelList(msgspec.Struct, kw_only=True):
    data: list[Model]
    object: Literal["list"] = "list"
