"""The keys in memory, kept in step with the store."""

from __future__ import annotations

import hashlib
import hmac
import json
import math
import os
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, select

from parkway.core.errors import ExpiredKey, InvalidKey, MissingKey
from parkway.policy.caller import Caller
from parkway.policy.keys import FORM, ID_LENGTH, SECRET_LENGTH, hash_of
from parkway.store.schema import keys
from parkway.store.sql import Database

# What a `KeyRing` reads.
_ROWS = select(
    keys.c.key_id, keys.c.name, keys.c.owner, keys.c.team, keys.c.scopes, keys.c.tier,
    keys.c.secret_hash, keys.c.expires_ms, keys.c.created_ms, keys.c.revoked_ms,
)  # fmt: skip
_DAY_MS = 86_400_000
_SUM = select(func.count(), func.sum(keys.c.created_ms % _DAY_MS)).where(keys.c.revoked_ms.is_(None))

_BATCH = 200
_BREATH_S = 0.001

_MARGIN_MS = 10_000
"""Changes are looked for from so long before the newest one that is known: clocks of two machines differ, and a
transaction takes its time."""

_HOW = "Send the header `Authorization: Bearer pk-...`; `parkway key show` prints the first key."

Entries = dict[str, tuple[Caller, bytes, float]]
"""By key id: whose it is, the SHA-256 of its secret, and when it expires, in seconds since 1970."""


class KeyRing:
    """The keys in memory, where each request finds its caller without the database.

    Nothing about past successes is remembered: a check is two microseconds, and a revoked key is refused from the next
    `load` on, an expired one from its last moment on.

    A key changes once, when it is revoked; so of many keys only those are read that came or went since the last look.
    That these are all is proved by a sum over all that are good. Where it is not as it should be (clocks that differ
    by more than a margin, a copy of the database that was restored), all are read.

    Args:
        clock: Seconds since 1970.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._keys: Entries = {}
        self._sum = _Sum(0, 0)
        self._seen_ms: int | None = None
        # What an unknown id is compared with, so that its refusal takes as long as that of a known one.
        self._nobody = (Caller("", ""), os.urandom(hashlib.sha256().digest_size), math.inf)

    async def load(self, database: Database) -> None:
        """Reads what has changed of the keys.

        Raises:
            StoreUnavailable: The database failed; the ring stays as it was.
        """
        news = await database.run(self._look, write=False)
        if news.whole:
            self._keys = news.entries
        else:
            self._keys.update(news.entries)
            for key_id in news.gone:
                self._keys.pop(key_id, None)
        self._sum, self._seen_ms = news.sum, news.seen_ms

    def _look(self, connection: Connection) -> _News:
        """Runs on a thread, and changes nothing."""
        if self._seen_ms is not None:
            changes = _changes(connection, self._keys, self._sum, self._seen_ms)
            if changes is not None:
                return changes
        return _everything(connection, self._keys)

    def forget(self) -> None:
        """Has the next `load` read everything."""
        self._seen_ms = None

    def refresh(self, entries: Entries) -> None:
        """Replaces what the ring knows."""
        self._keys = entries
        self.forget()

    def identify(self, authorization: str | None) -> Caller:
        """Whose key the value of an `Authorization` header carries.

        Raises:
            MissingKey: There is no header.
            InvalidKey: It carries no key of ours, or one that is unknown or revoked. The messages never hold a secret.
            ExpiredKey: It was good once.
        """
        if not authorization:
            raise MissingKey(f"No API key was sent. {_HOW}")
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer":
            raise InvalidKey(f"The Authorization header does not begin with `Bearer `. {_HOW}")
        form = FORM.fullmatch(token.strip())
        if form is None:
            raise InvalidKey(
                f"This is not an API key of Parkway: one is `pk-`, {ID_LENGTH} characters, `-`, and {SECRET_LENGTH} "
                f"characters. {_HOW}"
            )
        key_id, secret = form.groups()
        caller, expected, expires = self._keys.get(key_id, self._nobody)
        if not hmac.compare_digest(hash_of(secret), expected) or caller is self._nobody[0]:
            raise InvalidKey(f"The API key pk-{key_id}-... is unknown, wrong or revoked. {_HOW}")
        if expires <= self._clock():
            when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(expires))
            raise ExpiredKey(
                f"The API key pk-{key_id}-... expired on {when}; "
                "ask for a new one, which `parkway key create NAME` makes."
            )
        return caller


@dataclass(frozen=True, slots=True)
class _Sum:
    """What the keys that are good add up to: their number, and their times of creation, each within its day."""

    count: int
    created_ms: int

    def plus(self, rows: Collection[Any], sign: int = 1) -> _Sum:
        created_ms = sum(row.created_ms % _DAY_MS for row in rows)
        return _Sum(self.count + sign * len(rows), self.created_ms + sign * created_ms)


@dataclass(frozen=True, slots=True)
class _News:
    """What a look into the store has found: all keys (`whole`), or those that are new and those that are gone."""

    entries: Entries
    gone: Collection[str]
    sum: _Sum
    seen_ms: int
    whole: bool = False


# Put together on the thread of the database: with many keys it takes too long for the event loop.


def _everything(connection: Connection, known: Entries) -> _News:
    """All keys. Entries that are as they were are the same objects, so that nothing has to be thrown away."""
    entries: Entries = {}
    newest_ms = 0
    for batch in connection.execute(
        _ROWS.where(keys.c.revoked_ms.is_(None)).execution_options(yield_per=_BATCH)
    ).partitions():
        for row in batch:
            entry = _entry(row)
            before = known.get(row.key_id)
            entries[row.key_id] = before if before == entry and before is not None else entry
            newest_ms = max(newest_ms, row.created_ms)
        if known:
            time.sleep(_BREATH_S)  # requests are being served, and there is one interpreter for both
    return _News(entries, (), _sum_of(connection), max(newest_ms, _newest_end(connection)), whole=True)


def _changes(connection: Connection, known: Entries, before: _Sum, seen_ms: int) -> _News | None:
    """What was created or revoked since `seen_ms`; None where that does not lead from `before` to what there is."""
    since_ms = seen_ms - _MARGIN_MS
    lately = (keys.c.created_ms >= since_ms) | (keys.c.revoked_ms >= since_ms)
    rows = connection.execute(_ROWS.where(lately)).all()
    fresh = [row for row in rows if row.revoked_ms is None and row.key_id not in known]
    gone = [row for row in rows if row.revoked_ms is not None and row.key_id in known]
    now = _sum_of(connection)
    if now != before.plus(fresh).plus(gone, -1):
        return None
    newest_ms = max((max(row.created_ms, row.revoked_ms or 0) for row in rows), default=seen_ms)
    entries = {row.key_id: _entry(row) for row in fresh}
    return _News(entries, [row.key_id for row in gone], now, max(newest_ms, seen_ms))


def _entry(row: Any) -> tuple[Caller, bytes, float]:
    rights = None if row.scopes is None else frozenset(json.loads(row.scopes))
    caller = Caller(row.key_id, row.name, "key", row.owner, row.team, rights, row.tier)
    return caller, bytes(row.secret_hash), math.inf if row.expires_ms is None else row.expires_ms / 1000


def _sum_of(connection: Connection) -> _Sum:
    count, created_ms = connection.execute(_SUM).one()
    return _Sum(count, int(created_ms or 0))


def _newest_end(connection: Connection) -> int:
    return connection.execute(select(func.max(keys.c.revoked_ms))).scalar() or 0
