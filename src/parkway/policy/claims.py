"""What a token says of its bearer, read strictly: whatever two readers could understand differently is refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from parkway.core.errors import InvalidToken
from parkway.policy.caller import Caller
from parkway.policy.issuers import IssuerConfig
from parkway.policy.scopes import MAX_SCOPES

_MAX_NAME_LENGTH = 200


def read_object(data: bytes, what: str) -> dict[str, Any]:
    """A JSON object in which no name stands twice.

    Raises:
        InvalidToken: It is none; `what` names it.
    """
    try:
        value = json.loads(data, object_pairs_hook=_each_once, parse_constant=_no_constant)
    except RecursionError as error:
        raise InvalidToken(f"The token's {what} is nested too deeply.") from error
    except ValueError as error:
        reason = str(error) if isinstance(error, _Twice) else "is not JSON"
        raise InvalidToken(f"The token's {what} {reason}.") from error
    if not isinstance(value, dict):
        raise InvalidToken(f"The token's {what} is no JSON object.")
    return value


class _Twice(ValueError):
    pass


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _Twice("has a name twice")
    return found


def _no_constant(name: str) -> None:
    raise ValueError(name)


def seconds_of(claims: Mapping[str, Any], name: str) -> float | None:
    """A time in seconds since 1970; None where the claim is missing. Raises InvalidToken if it is no number."""
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e12:
        raise InvalidToken(f"The token's `{name}` is no time in seconds since 1970.")
    return float(value)


def caller_of(claims: Mapping[str, Any], config: IssuerConfig) -> Caller:
    """Who sends the token.

    Raises:
        InvalidToken: It does not say so, or lacks a claim that is required.
    """
    _check_required(claims, config)
    subject = _name(claims, "sub")
    user = _name(claims, config.user_claim)
    if config.user_claim == "email" and claims.get("email_verified", True) is not True:
        raise InvalidToken("The token's `email` is not verified, and it is what users are known by here.")
    # Both in one hash, and the issuer's length with them: no subject of one issuer can look like another's.
    issuer = config.issuer.encode()
    account = hashlib.sha256(b"%d:%s:%s" % (len(issuer), issuer, subject.encode("utf-8", "surrogatepass")))
    return Caller(
        key_id=f"user-{account.hexdigest()[:32]}",
        name=user,
        kind="user",
        user=user,
        team=None if config.team_claim is None else _optional_name(claims, config.team_claim),
        scopes=None if config.scopes_claim is None else _scopes(claims, config.scopes_claim, config.scopes_prefix),
        tier=None if config.tier_claim is None else _optional_name(claims, config.tier_claim),
    )


def _check_required(claims: Mapping[str, Any], config: IssuerConfig) -> None:
    for name, wanted in config.required_claims.items():
        value = _find(claims, name)
        given = {_plain(each) for each in (value if isinstance(value, list) else [value])}
        if given.isdisjoint([wanted] if isinstance(wanted, str) else wanted):
            raise InvalidToken(f"The token's `{name}` is not what identity.issuers requires.")


def _plain(value: object) -> str | None:
    """A value as it is written in the configuration."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, str | int) else None


def _find(claims: Mapping[str, Any], name: str) -> Any:
    """The claim of this name or, where there is none, the one that the dots in it lead to."""
    if name in claims:
        return claims[name]
    value: Any = claims
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _optional_name(claims: Mapping[str, Any], claim: str) -> str | None:
    return None if _find(claims, claim) is None else _name(claims, claim)


def _name(claims: Mapping[str, Any], claim: str) -> str:
    value = _find(claims, claim)
    if not isinstance(value, str) or not 1 <= len(value) <= _MAX_NAME_LENGTH or not value.isprintable():
        raise InvalidToken(f"The token's `{claim}` is not 1 to {_MAX_NAME_LENGTH} printable characters.")
    return value


def _scopes(claims: Mapping[str, Any], claim: str, prefix: str) -> frozenset[str]:
    value = _find(claims, claim)
    words = value.split() if isinstance(value, str) else value
    if words is None:
        return frozenset()
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise InvalidToken(f"The token's `{claim}` is neither a list of scopes nor scopes in a row.")
    scopes = frozenset(word.removeprefix(prefix) for word in words if word.startswith(prefix) and word.isprintable())
    if len(scopes) > MAX_SCOPES:
        raise InvalidToken(f"The token's `{claim}` has {len(scopes)} scopes; {MAX_SCOPES} are read.")
    return scopes
