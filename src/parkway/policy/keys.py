"""API keys: made once, kept as hashes, checked in memory."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import string
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, insert, select, update

from parkway.core.errors import InvalidKey, InvalidRequest, MissingKey, NotFound, StartupError
from parkway.policy.caller import Caller
from parkway.policy.chain import administered
from parkway.store.home import Home
from parkway.store.revisions import bump
from parkway.store.schema import keys
from parkway.store.sql import Database

TOPIC = "keys"  # of store.revisions

_ID_LENGTH = 12
_SECRET_LENGTH = 43  # of 62 characters: 256 bits
_ID_ALPHABET = string.ascii_lowercase + string.digits
_SECRET_ALPHABET = string.ascii_letters + string.digits  # no dash, so that a key splits in one way only
_FORM = re.compile(rf"pk-([a-z0-9]{{{_ID_LENGTH}}})-([A-Za-z0-9]{{{_SECRET_LENGTH}}})")
_NAME_LENGTH = 100

_SHOWN = (keys.c.key_id, keys.c.name, keys.c.created_ms, keys.c.revoked_ms)  # the fields of Key, in order

_HOW = "Send the header `Authorization: Bearer pk-...`; `parkway key show` prints the first key."


@dataclass(frozen=True, slots=True)
class Key:
    """A key as it may be shown: without its secret, which nobody knows but who holds it."""

    key_id: str
    name: str
    created_ms: int
    revoked_ms: int | None


class KeyStore:
    """The keys in the database. Every change raises the topic `keys`, by which each `KeyRing` hears of it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, name: str) -> tuple[Key, str]:
        """A new key called `name` and its plain text, which is not kept and cannot be shown again.

        Raises:
            InvalidRequest: The name is empty, too long or not printable.
        """
        with self._database.begin() as connection:
            return _create(connection, name)

    def create_first(self, name: str, keep: Callable[[str], None]) -> Key | None:
        """`create` if there has never been a key, else None. The key comes to be only if `keep(text)` succeeds."""
        with self._database.begin() as connection:
            if connection.execute(select(keys.c.key_id).limit(1)).first() is not None:
                return None
            key, text = _create(connection, name)
            keep(text)
            return key

    def list(self) -> list[Key]:
        """All keys, revoked ones too, oldest first."""
        with self._database.read() as connection:
            query = select(*_SHOWN).order_by(keys.c.created_ms, keys.c.key_id)
            return [Key(*row) for row in connection.execute(query)]

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
            return Key(*row)


def _create(connection: Connection, name: str) -> tuple[Key, str]:
    name = name.strip()
    if not 1 <= len(name) <= _NAME_LENGTH or not name.isprintable():
        raise InvalidRequest(
            f'The key name "{_shown(name)}" must be 1 to {_NAME_LENGTH} printable characters.', param="name"
        )
    key_id = "".join(secrets.choice(_ID_ALPHABET) for _ in range(_ID_LENGTH))
    secret = "".join(secrets.choice(_SECRET_ALPHABET) for _ in range(_SECRET_LENGTH))
    key = Key(key_id, name, created_ms=_now_ms(), revoked_ms=None)
    connection.execute(
        insert(keys).values(key_id=key.key_id, name=name, secret_hash=_hash(secret), created_ms=key.created_ms)
    )
    bump(connection, TOPIC)
    administered(connection, "key.create", f"{key_id} ({name})")
    return key, f"pk-{key_id}-{secret}"


class KeyRing:
    """The keys in memory, where each request finds its caller without the database.

    Nothing about past successes is remembered: a check is two microseconds, and a revoked key is refused from the next
    `refresh` on.
    """

    def __init__(self) -> None:
        self._keys: dict[str, tuple[Caller, bytes]] = {}
        # What an unknown id is compared with, so that its refusal takes as long as that of a known one.
        self._nobody = (Caller("", ""), os.urandom(hashlib.sha256().digest_size))

    async def load(self, database: Database) -> None:
        """Reads the keys again.

        Raises:
            StoreUnavailable: The database failed; the ring stays as it was.
        """
        self.refresh(await database.run(_live, write=False))

    def refresh(self, rows: Iterable[tuple[str, str, bytes]]) -> None:
        """Replaces what the ring knows by rows of key id, name and SHA-256 of the secret."""
        self._keys = {key_id: (Caller(key_id, name), bytes(hashed)) for key_id, name, hashed in rows}

    def identify(self, authorization: str | None) -> Caller:
        """Whose key the value of an `Authorization` header carries.

        Raises:
            MissingKey: There is no header.
            InvalidKey: It carries no key of ours, or one that is unknown or revoked. The messages never hold a secret.
        """
        if not authorization:
            raise MissingKey(f"No API key was sent. {_HOW}")
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer":
            raise InvalidKey(f"The Authorization header does not begin with `Bearer `. {_HOW}")
        form = _FORM.fullmatch(token.strip())
        if form is None:
            raise InvalidKey(
                f"This is not an API key of Parkway: one is `pk-`, {_ID_LENGTH} characters, `-`, and {_SECRET_LENGTH} "
                f"characters. {_HOW}"
            )
        key_id, secret = form.groups()
        caller, expected = self._keys.get(key_id, self._nobody)
        if not hmac.compare_digest(_hash(secret), expected) or caller is self._nobody[0]:
            raise InvalidKey(f"The API key pk-{key_id}-... is unknown, wrong or revoked. {_HOW}")
        return caller


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


def _hash(secret: str) -> bytes:
    # One round of SHA-256, no salt, no slow hash: those protect guessable passwords, and this is 256 random bits.
    return hashlib.sha256(secret.encode("ascii")).digest()


def _live(connection: Connection) -> list[tuple[str, str, bytes]]:
    query = select(keys.c.key_id, keys.c.name, keys.c.secret_hash).where(keys.c.revoked_ms.is_(None))
    return list(connection.execute(query).all())


def _shown(value: str) -> str:
    """A value from outside, short and on one line."""
    text = value.encode("unicode_escape").decode("ascii")
    return text if len(text) <= 60 else text[:57] + "..."


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
