"""The public keys of one issuer, by key id, each with the algorithms that it can have signed with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MAX_KEYS = 100
MAX_KID_LENGTH = 256

_MIN_RSA_BITS = 2048
_MAX_RSA_BITS = 8192  # a check takes longer with the size; nobody has larger ones

_RSA = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
_CURVES = {
    ("EC", "P-256"): frozenset({"ES256"}),
    ("EC", "P-384"): frozenset({"ES384"}),
    ("EC", "P-521"): frozenset({"ES512"}),
    ("OKP", "Ed25519"): frozenset({"EdDSA"}),
    ("OKP", "Ed448"): frozenset({"EdDSA"}),
}
# What a public key consists of. Anything else in an entry, such as a private part, is not looked at.
_PUBLIC = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A public key, or a shared secret, and what it may be used with. Its repr does not hold it."""

    key: Any
    algorithms: frozenset[str]

    def __repr__(self) -> str:
        return f"SigningKey({', '.join(sorted(self.algorithms))})"


SigningKeys = Mapping[str | None, SigningKey]
"""By key id; None is the one that needs none."""


def read_keys(document: object) -> dict[str | None, SigningKey]:
    """The keys of a JWK set (RFC 7517) that can check signatures; others are left out.

    A token without a key id is checked with the key that has none, or with the only one that there is.

    Raises:
        ValueError: It is no JWK set, or has too many keys, or none that can be used.
    """
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise ValueError("what was sent as its keys is no JWK set")
    if len(entries) > MAX_KEYS:
        raise ValueError(f"its JWK set has {len(entries)} keys; at most {MAX_KEYS} are read")
    found: dict[str | None, SigningKey] = {}
    for entry in entries:
        kid = entry.get("kid") if isinstance(entry, dict) else None
        key = _key(entry) if isinstance(entry, dict) and (kid is None or _is_kid(kid)) else None
        if key is not None and kid not in found:  # a key id that comes again must not take another's place
            found[kid] = key
    if not found:
        raise ValueError("its JWK set has no key that checks signatures")
    if len(found) == 1:
        (only,) = found.values()
        found.setdefault(None, only)
    return found


def _is_kid(kid: object) -> bool:
    return isinstance(kid, str) and 0 < len(kid) <= MAX_KID_LENGTH


def _key(entry: dict[str, Any]) -> SigningKey | None:
    from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm  # with cryptography: 80 ms, for who has issuers
    from jwt.exceptions import PyJWTError

    kind = entry.get("kty")
    operations = entry.get("key_ops")
    if kind not in _PUBLIC or entry.get("use", "sig") != "sig":
        return None
    if operations is not None and not (isinstance(operations, list) and "verify" in operations):
        return None
    algorithms = _RSA if kind == "RSA" else _CURVES.get((kind, str(entry.get("crv"))), frozenset())
    if "alg" in entry:
        algorithms = algorithms & {str(entry["alg"])}
    if not algorithms:
        return None
    public = {"kty": kind, **{name: entry[name] for name in _PUBLIC[kind] if isinstance(entry.get(name), str)}}
    reader = {"RSA": RSAAlgorithm, "EC": ECAlgorithm, "OKP": OKPAlgorithm}[kind]
    try:
        key: Any = reader.from_jwk(public)
    except (PyJWTError, ValueError, TypeError, KeyError):
        return None
    if kind == "RSA" and not _MIN_RSA_BITS <= key.key_size <= _MAX_RSA_BITS:
        return None
    return SigningKey(key, algorithms)
