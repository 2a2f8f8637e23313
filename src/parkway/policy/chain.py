"""The audit chain: entries that each carry a hash over themselves and the hash before, in the table `audit`.

    hash(n) = SHA-256(hash(n - 1) + entry(n))        hash(-1) = SHA-256("parkway audit " + installation)

`entry(n)` is the JSON that is stored: keys sorted, no spaces, UTF-8; it holds its own number and time. Entry 0 names
the installation. Who changes, removes or inserts an entry has to recompute every hash behind it; a seal (an HMAC under
a key that does not lie in the database) makes that impossible up to the newest seal. Source: Schneier and Kelsey,
"Secure Audit Logs to Support Computer Forensics", 1999, of which this is the plain form: one key, no evolution.
"""

from __future__ import annotations

import getpass
import hashlib
import hmac
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import msgspec
from sqlalchemy import Connection, delete, func, select

from parkway.core.errors import StartupError
from parkway.store.revisions import bump
from parkway.store.rows import insert_rows
from parkway.store.schema import audit

TOPIC = "audit"  # of store.revisions; its row is what writers of the chain queue for

Kind = Literal[
    "allow", "deny", "limit", "budget", "guardrail", "administration",
    "suppressed", "lost", "anchor", "checkpoint", "genesis",
]  # fmt: skip

MAX_DETAIL_CHARS = 1000

_READ_ROWS = 5000


class Seal(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What the chain was at one entry. `mac` is HMAC-SHA256 over the other three, in hex; None without a key."""

    installation: str
    sequence: int
    hash: str
    mac: str | None = None


class Entry(msgspec.Struct, kw_only=True, omit_defaults=True, gc=False):
    """One decision.

    Attributes:
        kind: What was decided. `suppressed` and `lost` stand for decisions without an entry of their own, `count` of
            them; `anchor`, `checkpoint` and `genesis` belong to the chain itself.
        action: What was asked for: a surface such as `chat`, a route, or `key.create`.
        at_ms: When, in milliseconds since 1970.
        outcome: The code of the error, or what became of the thing; empty where all went well.
        source: Whence a caller came who could not prove anything: an address.
        actor: Who administers, where it is no key: the user of the process.
        detail: For people; never content, never a secret.
        sequence: The number in the chain; given when it is appended.
    """

    kind: Kind
    action: str
    at_ms: int
    outcome: str = ""
    key_id: str = ""
    user: str | None = None
    team: str | None = None
    model: str = ""
    request_id: str = ""
    source: str = ""
    actor: str = ""
    detail: str = ""
    count: int = 1
    seal: Seal | None = None
    sequence: int = -1


class Link(msgspec.Struct, frozen=True):
    """An entry as it is kept: its own bytes, which the hash covers."""

    sequence: int
    at_ms: int
    entry: bytes
    hash: bytes


_encode = msgspec.json.Encoder(order="sorted").encode
decode_entry = msgspec.json.Decoder(Entry).decode


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def operator() -> str:
    """Who acts where nobody sent a request: the user of this process."""
    try:
        return f"user:{getpass.getuser()}"
    except (KeyError, OSError):  # a user without a name, as in many containers
        return f"user:{os.getuid()}"


def link_hash(before: bytes, entry: bytes) -> bytes:
    """The hash of an entry that follows on one with the hash `before`."""
    return hashlib.sha256(before + entry).digest()


def hash_before_genesis(installation: str) -> bytes:
    return hashlib.sha256(b"parkway audit " + installation.encode()).digest()


def append(connection: Connection, entries: Iterable[Entry]) -> Link:
    """Appends `entries` in the caller's transaction, which has the chain for itself until it ends; returns the head.

    In any number of processes there is one chain: the row of the topic `audit` is the lock.
    """
    bump(connection, TOPIC)
    head = head_of(connection) or _begin(connection)

    def rows() -> Iterator[tuple[object, ...]]:
        nonlocal head
        for entry in entries:
            entry.sequence = head.sequence + 1
            text = _encoded(entry)
            head = Link(entry.sequence, entry.at_ms, text, link_hash(head.hash, text))
            yield (head.sequence, head.at_ms, text.decode(), head.hash)

    insert_rows(connection, audit, rows())
    return head


def administered(connection: Connection, action: str, detail: str) -> None:
    """Appends that something was administered, in the transaction of the change: there is neither without the other."""
    entry = Entry(
        kind="administration", action=action, at_ms=now_ms(), detail=detail[:MAX_DETAIL_CHARS], actor=operator()
    )
    append(connection, [entry])


def head_of(connection: Connection) -> Link | None:
    """The newest entry."""
    row = connection.execute(select(audit).order_by(audit.c.sequence.desc()).limit(1)).one_or_none()
    return None if row is None else _link(row)


def installation_of(connection: Connection) -> str:
    """Which installation's chain this is; empty where it has not begun."""
    row = connection.execute(select(audit).where(audit.c.sequence == 0)).one_or_none()
    return "" if row is None else decode_entry(row.entry).detail


def links(connection: Connection, *, since_ms: int | None = None) -> Iterator[Link]:
    """The whole chain in order, or what is at least as new as `since_ms`, in parts that fit into memory."""
    at = -1
    while True:
        query = select(audit).where(audit.c.sequence > at).order_by(audit.c.sequence).limit(_READ_ROWS)
        if since_ms is not None:
            query = query.where(audit.c.at_ms >= since_ms)
        rows = connection.execute(query).all()
        yield from map(_link, rows)
        if len(rows) < _READ_ROWS:
            return
        at = rows[-1].sequence


def page(connection: Connection, after: int, since_ms: int, limit: int) -> list[Link]:
    """At most `limit` entries behind the one of sequence `after` that are at least as new as `since_ms`, in order."""
    query = select(audit).where(audit.c.sequence > after, audit.c.at_ms >= since_ms)
    return [_link(row) for row in connection.execute(query.order_by(audit.c.sequence).limit(limit))]


def seal(key: bytes | None, installation: str, sequence: int, digest: bytes) -> Seal:
    """The seal over an entry."""
    bare = Seal(installation=installation, sequence=sequence, hash=digest.hex())
    return bare if key is None else msgspec.structs.replace(bare, mac=_mac(key, bare))


def sealed_by(key: bytes, sealed: Seal) -> bool:
    """Whether `sealed` was made with `key`."""
    return sealed.mac is not None and hmac.compare_digest(_mac(key, sealed), sealed.mac)


def anchor(connection: Connection, key: bytes | None) -> Link | None:
    """Seals the chain as it is now, if it went on since the last seal; returns the entry that says so."""
    bump(connection, TOPIC)
    head = head_of(connection)
    if head is None or decode_entry(head.entry).kind == "anchor":
        return None
    sealed = seal(key, installation_of(connection), head.sequence, head.hash)
    return append(connection, [Entry(kind="anchor", action="seal", at_ms=now_ms(), seal=sealed)])


def retire(connection: Connection, key: bytes | None, older_than_ms: int) -> int:
    """Says in the chain that entries from before `older_than_ms` will be removed: what is behind them stays provable.

    Returns:
        The number of the last entry that may go (`remove`), 0 if there is none. Entry 0 always stays.
    """
    bump(connection, TOPIC)
    first = connection.scalar(select(func.min(audit.c.sequence)).where(audit.c.sequence > 0))
    head = head_of(connection)
    if first is None or head is None:
        return 0
    # Clocks of several processes differ by a little: the first by time is near enough to the first by number.
    kept = connection.scalar(
        select(audit.c.sequence).where(audit.c.at_ms >= older_than_ms).order_by(audit.c.at_ms).limit(1)
    )
    last = head.sequence if kept is None else kept - 1
    row = connection.execute(select(audit).where(audit.c.sequence == last)).one_or_none()
    if last < first or row is None:
        return 0
    sealed = seal(key, installation_of(connection), last, bytes(row.hash))
    append(
        connection,
        [Entry(kind="checkpoint", action="retention", at_ms=now_ms(), count=last - first + 1, seal=sealed)],
    )
    return last


def remove(connection: Connection, last: int, limit: int) -> int:
    """Removes at most `limit` entries up to number `last`; returns how many, less than `limit` at the end."""
    oldest = select(audit.c.sequence).where(audit.c.sequence.between(1, last)).order_by(audit.c.sequence).limit(limit)
    return connection.execute(delete(audit).where(audit.c.sequence.in_(oldest))).rowcount


def read_key(path: Path) -> bytes | None:
    """The key in the file, or None where there is no file.

    Raises:
        StartupError: It cannot be read, or holds less than 32 bytes.
    """
    try:
        key = path.read_bytes().strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StartupError(f"The audit key {path} cannot be read: {error.strerror}; it is audit.key_file") from error
    if len(key) < 32:
        raise StartupError(f"The audit key {path} has {len(key)} bytes; it needs 32 at least (audit.key_file)")
    return key


def require_key(path: Path) -> bytes:
    """Like `read_key`, where there has to be one."""
    if (key := read_key(path)) is None:
        raise StartupError(f"The audit key {path} does not exist; it is audit.key_file: put 32 random bytes there")
    return key


def make_key(path: Path) -> bytes:
    """The key in the file; a new one, readable by its owner alone, where there is none. Raises like `read_key`."""
    if (key := read_key(path)) is not None:
        return key
    # Written aside and linked: nobody reads half a key, and of two who make one at once both get the same.
    fresh = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        fresh.unlink(missing_ok=True)
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(os.urandom(32).hex().encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            path.hardlink_to(fresh)
        except FileExistsError:
            pass  # another process was faster
        finally:
            fresh.unlink()
    except OSError as error:
        raise StartupError(f"The audit key {path} cannot be made: {error.strerror}; it is audit.key_file") from error
    return read_key(path) or b""


def _begin(connection: Connection) -> Link:
    """Entry 0, which names the installation."""
    installation = os.urandom(16).hex()
    entry = Entry(kind="genesis", action="begin", at_ms=now_ms(), detail=installation, sequence=0)
    text = _encode(entry)
    digest = link_hash(hash_before_genesis(installation), text)
    insert_rows(connection, audit, [(0, entry.at_ms, text.decode(), digest)])
    return Link(0, entry.at_ms, text, digest)


def _encoded(entry: Entry) -> bytes:
    try:
        return _encode(entry)
    except (UnicodeEncodeError, msgspec.EncodeError):  # half a surrogate pair, from a file name or an environment
        for name in Entry.__struct_fields__:
            if isinstance(value := getattr(entry, name), str):
                setattr(entry, name, value.encode("utf-8", "replace").decode())
        return _encode(entry)


def _mac(key: bytes, sealed: Seal) -> str:
    said = f"parkway seal {sealed.installation} {sealed.sequence} {sealed.hash}"
    return hmac.new(key, said.encode(), hashlib.sha256).hexdigest()


def _link(row: Sequence[object]) -> Link:
    sequence, at_ms, entry, digest = row
    return Link(sequence, at_ms, str(entry).encode(), bytes(digest))  # pyright: ignore[reportArgumentType] - table's own types
