"""Keeping the audit log: its seals, and the removal of what is older than it should be."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

from parkway.policy import chain
from parkway.policy.audit import AuditConfig
from parkway.policy.verification import Head
from parkway.store.home import Home
from parkway.store.sql import Database

log = logging.getLogger(__name__)

_DAY_MS = 86_400_000
_ROWS_A_ROUND = 5000


def key_file(config: AuditConfig, home: Home) -> Path:
    """Where the key of the seals lies."""
    return Path(config.key_file) if config.key_file else home.audit_key_file


class Keeping:
    """What the worker does for the audit log.

    Raises:
        StartupError: The key cannot be read or made.
    """

    def __init__(self, database: Database, config: AuditConfig, home: Home) -> None:
        self._database = database
        self._config = config
        self._home = home
        path = key_file(config, home)
        # One that was named is to be there: on a host where it is missing another would be made, and prove nothing.
        self._key = chain.make_key(path) if config.key_file is None else chain.require_key(path)

    def prepare(self, config: AuditConfig) -> Callable[[], None]:
        """Makes another configuration ready; what it returns puts it into force.

        Raises:
            StartupError: As for the class; nothing has changed then.
        """
        fresh = Keeping(self._database, config, self._home)

        def commit() -> None:
            self._config, self._key = fresh._config, fresh._key

        return commit

    async def anchor(self) -> None:
        """Seals what is new, and notes the head in the home, where who can write the database need not come."""
        link = await self._database.run(lambda connection: chain.anchor(connection, self._key))
        if link is not None:
            note_head(self._home, Head(link.sequence, link.hash.hex()))

    async def retire(self) -> int:
        """Removes entries older than `audit.retention_days`; returns how many went."""
        older_than_ms = chain.now_ms() - self._config.retention_days * _DAY_MS
        last = await self._database.run(lambda connection: chain.retire(connection, self._key, older_than_ms))
        removed = 0
        while last > 0:
            # Short transactions, so that the writers of the chain get their turn in between.
            count = await self._database.run(lambda connection: chain.remove(connection, last, _ROWS_A_ROUND))
            removed += count
            if count < _ROWS_A_ROUND:
                break
        if removed:
            log.info("removed %d entries of the audit log, older than %d days", removed, self._config.retention_days)
        return removed


def note_head(home: Home, head: Head) -> None:
    """Writes the head into the home's file, whole or not at all."""
    fresh = home.audit_anchor_file.with_suffix(f".{os.getpid()}.new")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "w") as file:
        file.write(f"{head.sequence}:{head.hash}\n")
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(home.audit_anchor_file)


def noted_head(home: Home) -> Head | None:
    """The head that was noted last, if there is one. Raises InvalidRequest where the file holds something else."""
    try:
        return Head.parse(home.audit_anchor_file.read_text(encoding="ascii").strip())
    except FileNotFoundError:
        return None
