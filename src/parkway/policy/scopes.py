"""Scopes: what credentials are good for, in words such as `model:park-mini` and `admin`."""

from __future__ import annotations

import re
from collections.abc import Collection

from parkway.core.errors import InvalidRequest

ADMIN = "admin"
KINDS = ("model", "knowledge", "agent", "tool")

MAX_SCOPES = 256
"""The most that one key or token may have: a decision looks at all of them."""

_SCOPE = re.compile(rf"{ADMIN}|({'|'.join(KINDS)}):(\*|[A-Za-z0-9._:/-]{{1,128}})")


def check_scopes(scopes: Collection[str]) -> frozenset[str]:
    """`scopes` as a set.

    Raises:
        InvalidRequest: One of them is no scope, or there are too many.
    """
    if len(scopes) > MAX_SCOPES:
        raise InvalidRequest(f"{len(scopes)} scopes are too many; {MAX_SCOPES} are allowed.", param="scopes")
    for scope in scopes:
        if not _SCOPE.fullmatch(scope):
            raise InvalidRequest(
                f"{scope[:60]!r} is not a scope: one is `{ADMIN}`, or KIND:NAME or KIND:* with one of the kinds "
                f"{', '.join(KINDS)}, such as model:park-mini",
                param="scopes",
            )
    return frozenset(scopes)
