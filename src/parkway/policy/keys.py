"""API keys: made once, kept as hashes, checked in memory."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import string
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, insert, select, update

from parkway.core.errors import InvalidRequest, NotFound, StartupError
from parkway.policy.caller import Caller
from parkway.policy.chain import administered
from parkway.policy.scopes import check_scopes
from parkway.store.home import Home
from parkway.store.revisions import bump
from parkway.store.schema import keys
from parkway.store.sql import Database

TOPIC = "keys"  # of store.revisions

ID_LENGTH = 12
SECRET_LENGTH = 43  # of 62 characters: 256 bits
_ID_ALPHABET = string.ascii_lowercase + string.digits
_SECRET_ALPHABET = string.ascii_letters + string.digits  # no dash, so that a key splits in one way only
FORM = re.compile(rf"pk-([a-z0-9]{{{ID_LENGTH}}})-([A-Za-z0-9]{{{SECRET_LENGTH}}})")
_NAME_LENGTH = 100

# The fields of Key, in order.
_SHOWN = (
    keys.c.key_id, keys.c.name, keys.c.created_ms, keys.c.revoked_ms,
    keys.c.owner, keys.c.team, keys.c.scopes, keys.c.tier, keys.c.expires_ms,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Key:
    """A key as it may be shown: without its secret, which nobody knows but who holds it.

    Attributes:
        owner: The user whose it is.
        team: The team that it counts for.
        scopes: What it is good for (see `scopes.py`); None: everything that policy allows.
        tier: The tier of service; None is the default one.
        expires_ms: From this moment on it is refused; None: never.
    """

    key_id: str
    name: str
    created_ms: int
    revoked_ms: int | None = None
    owner: str | None = None
    team: str | None = None
    scopes: tuple[str, ...] | None = None
    tier: str | None = None
    expires_ms: int | None = None

    @property
    def caller(self) -> Caller:
        """Who sends a request with this key."""
        scopes = None if self.scopes is None else frozenset(self.scopes)
        return Caller(self.key_id, self.name, "key", self.owner, self.team, scopes, self.tier)


class KeyStore:
    """The keys in the database. Every change raises the topic `keys`, by which each `KeyRing` hears of it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(
        self,
        name: str,
        *,
        owner: str | None = None,
        team: str | None = None,
        scopes: Collection[str] | None = None,
        tier: str | None = None,
        expires_s: float | None = None,
    ) -> tuple[Key, str]:
        """A new key called `name` and its plain text, which is not kept and cannot be shown again.

        Args:
            scopes: None for everything that policy allows; an empty one is good for nothing.
            expires_s: How long it is good, from now on.

        Raises:
            InvalidRequest: A name is empty, too long or not printable, or a scope is none.
        """
        now_ms = _now_ms()
        key = Key(
            key_id="".join(secrets.choice(_ID_ALPHABET) for _ in range(ID_LENGTH)),
            name=_name("name", name),
            created_ms=now_ms,
            owner=None if owner is None else _name("owner", owner),
            team=None if team is None else _name("team", team),
            scopes=None if scopes is None else tuple(sorted(check_scopes(scopes))),
            tier=None if tier is None else _name("tier", tier),
            expires_ms=None if expires_s is None else now_ms + round(expires_s * 1000),
        )
        with self._database.begin() as connection:
            return key, _insert(connection, key)

    def create_first(self, name: str, keep: Callable[[str], None]) -> Key | None:
        """`create` if there has never been a key, else None. The key comes to be only if `keep(text)` succeeds."""
        with self._database.begin() as connection:
            if connection.execute(select(keys.c.key_id).limit(1)).first() is not None:
                return None
            key_id = "".join(secrets.choice(_ID_ALPHABET) for _ in range(ID_LENGTH))
            key = Key(key_id, _name("name", name), created_ms=_now_ms())
            keep(_insert(connection, key))
            return key

    def list(self) -> list[Key]:
        """All keys, revoked ones too, oldest first."""
        with self._database.read() as connection:
            query = select(*_SHOWN).order_by(keys.c.created_ms, keys.c.key_id)
            return [_key(row) for row in connection.execute(query)]

    def find(self, key_id: str) -> Key:
        """The key with this id, revoked or not.

        Raises:
            NotFound: There is no such key.
        """
        with self._database.read() as connection:
            row = connection.execute(select(*_SHOWN).where(keys.c.key_id == key_id)).one_or_none()
        if row is None:
            raise NotFound(f'There is no key "{_shown(key_id)}"; `parkway key list` shows the ids.')
        return _key(row)

    def revoke(self, key_id: str) -> Key:
        """Ends a key for good, everywhere within a watch's interval. To revoke it again changes nothing.

        Raises:
            NotFound: There is no such key.
        """
        with self._database.begin() as connection:
            missing = keys.c.revoked_ms.is_(None)
            done = connection.execute(update(keys).where(keys.c.key_id == key_id, missing).values(revoked_ms=_now_ms()))
            row = connection.execute(select(*_SHOWN).where(keys.c.key_id == key_id)).one_or_none()
            if row is None:
                raise NotFound(f'There is no key "{_shown(key_id)}"; `parkway key list` shows the ids.')
            if done.rowcount:
                bump(connection, TOPIC)
                administered(connection, "key.revoke", f"{key_id} ({row.name})")
            return _key(row)


def _name(field: str, value: str) -> str:
    value = value.strip()
    if not 1 <= len(value) <= _NAME_LENGTH or not value.isprintable():
        what = "key name" if field == "name" else field
        raise InvalidRequest(
            f'The {what} "{_shown(value)}" must be 1 to {_NAME_LENGTH} printable characters.', param=field
        )
    return value


def _insert(connection: Connection, key: Key) -> str:
    """Keeps a new key; returns its plain text."""
    secret = "".join(secrets.choice(_SECRET_ALPHABET) for _ in range(SECRET_LENGTH))
    values = {column.name: getattr(key, column.name) for column in _SHOWN}
    values["scopes"] = None if key.scopes is None else json.dumps(key.scopes)
    connection.execute(insert(keys).values(**values, secret_hash=hash_of(secret)))
    bump(connection, TOPIC)
    administered(connection, "key.create", f"{key.key_id} ({key.name})")
    return f"pk-{key.key_id}-{secret}"


def _key(row: Iterable[Any]) -> Key:
    fields = dict(zip((column.name for column in _SHOWN), row, strict=False))
    if fields["scopes"] is not None:
        fields["scopes"] = tuple(json.loads(fields["scopes"]))
    return Key(**fields)


def ensure_first_key(home: Home, store: KeyStore) -> Key | None:
    """Creates the key `first` if the database has never had one; its plain text goes to `home.first_key_file`.

    Returns:
        The key, or None where there were keys already.

    Raises:
        StartupError: The file cannot be written; then there is no key either.
    """
    # The file comes before the commit: a crash in between leaves a file that the next start replaces, and never a
    # key that nobody knows.
    return store.create_first("first", keep=lambda text: _write_secret(home.first_key_file, text))


def first_key(home: Home) -> str | None:
    """The plain text of the first key, if this home has it."""
    try:
        return home.first_key_file.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return None


def _write_secret(path: Path, secret: str) -> None:
    """Writes a file that only its owner can read, whole or not at all."""
    fresh = path.with_suffix(".new")
    try:
        fresh.unlink(missing_ok=True)
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(f"{secret}\n")
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except OSError as error:
        raise StartupError(f"The first key cannot be written to {path}: {error.strerror}") from error


def hash_of(secret: str) -> bytes:
    # One round of SHA-256, no salt, no slow hash: those protect guessable passwords, and this is 256 random bits.
    return hashlib.sha256(secret.encode("ascii")).digest()


def _shown(value: str) -> str:
    """A value from outside, short and on one line."""
    text = value.encode("unicode_escape").decode("ascii")
    return text if len(text) <= 60 else text[:57] + "..."


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
