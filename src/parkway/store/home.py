"""The home: the one directory that Parkway writes to."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from parkway.core.errors import StartupError

_PROBE_BYTES = 1024 * 1024  # what the first start needs, with room: the tables, their write-ahead log, the logs


@dataclass(frozen=True, slots=True)
class Home:
    """The layout of the directory. `open` makes sure that it can be used; the constructor alone only names it."""

    path: Path

    @classmethod
    def open(cls, path: Path | None = None) -> Home:
        """The home at `path`, else at `$PARKWAY_HOME`, else at `~/.parkway`; made, for its owner alone, if new.

        Raises:
            StartupError: It is no directory, cannot be made or written to, or its disk is full.
        """
        chosen = path or Path(os.environ.get("PARKWAY_HOME") or "~/.parkway")
        try:
            home = cls(chosen.expanduser().absolute())
        except RuntimeError as error:  # no home directory of the user is known
            raise StartupError(f"{chosen}: {error}. Set PARKWAY_HOME to a directory") from error
        with home._explained():
            home.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            home.logs.mkdir(mode=0o700, exist_ok=True)
            home._probe()
        return home

    @property
    def database_url(self) -> str:
        """Where the database is unless `store.url` says otherwise."""
        return f"sqlite:///{quote(str(self.path / 'parkway.db'))}"

    @property
    def logs(self) -> Path:
        """The directory of the logs of the processes."""
        return self.path / "logs"

    @property
    def first_key_file(self) -> Path:
        """Where the first key stands in plain text, for `parkway key show`."""
        return self.path / "first.key"

    @property
    def run_file(self) -> Path:
        """What a running Parkway says about itself: a JSON object with `pid` and `url`."""
        return self.path / "run.json"

    @property
    def audit_key_file(self) -> Path:
        """The key of the audit log's seals, unless `audit.key_file` says otherwise."""
        return self.path / "audit.key"

    @property
    def audit_anchor_file(self) -> Path:
        """The head of the audit log as it was sealed last: a line `SEQUENCE:HASH`."""
        return self.path / "audit.anchor"

    @property
    def figures(self) -> Path:
        """The directory in which gateway processes share what they have counted."""
        return self.path / "figures"

    @property
    def knowledge(self) -> Path:
        """The directory of the documents' indexes, one in it for each collection."""
        return self.path / "knowledge"

    @property
    def registry_file(self) -> Path:
        """What a registry outside the home had last, for a start while it is away."""
        return self.path / "registry.json"

    def publisher(self) -> str:
        """Under which name this home publishes endpoints: drawn once, the same ever after.

        Raises:
            StartupError: It cannot be written down.
        """
        path = self.path / "publisher"
        with self._explained():
            with suppress(FileExistsError), path.open("x") as file:
                file.write(secrets.token_hex(4))
            return path.read_text().strip()

    def lock(self) -> Lock:
        """Makes this process the only Parkway on the home until `Lock.release`, or until it dies.

        Raises:
            StartupError: Another one runs; the message has its process id and, if it is up, its address.
        """
        with self._explained():
            descriptor = os.open(self.path / "parkway.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        except BlockingIOError as error:
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
            os.close(descriptor)
            raise StartupError(
                f"Another Parkway ({self._describe(holder)}) runs on this home, {self.path}. "
                "Stop it, or set PARKWAY_HOME to another directory"
            ) from error
        except OSError as error:
            os.close(descriptor)
            raise StartupError(f"The home {self.path} cannot be locked: {error.strerror}") from error
        return Lock(descriptor)

    def _describe(self, pid: str) -> str:
        shown = f"pid {pid}" if pid else "just starting"
        try:
            run = json.loads(self.run_file.read_bytes())
        except (OSError, ValueError):
            return shown
        # A file of another pid was left by an earlier run that was killed.
        known = isinstance(run, dict) and str(run.get("pid")) == pid and run.get("url")
        return f"{shown}, {run['url']}" if known else shown

    def _probe(self) -> None:
        """Writes a little to the disk itself, for a full disk shows only there."""
        probe = self.path / f".probe-{os.getpid()}"
        try:
            with probe.open("wb") as file:
                file.write(b"\0" * _PROBE_BYTES)
                file.flush()
                os.fsync(file.fileno())
        finally:
            probe.unlink(missing_ok=True)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except FileExistsError as error:
            raise StartupError(f"The home {self.path}: {error.filename} is not a directory") from error
        except NotADirectoryError as error:
            raise StartupError(f"The home {self.path}: a parent of it is not a directory") from error
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise StartupError(
                    f"The disk of the home {self.path} is full ({_free(self.path)}): Parkway needs at least "
                    f"{_PROBE_BYTES // 1024} KiB to start. Free some, or set PARKWAY_HOME to another disk"
                ) from error
            raise StartupError(
                f"The home {self.path} cannot be used: {error.strerror} ({error.filename or self.path}). "
                "Set PARKWAY_HOME to a directory that you may write to"
            ) from error


class Lock:
    """The hold on a home. The kernel ends it with the process, so a killed Parkway leaves no stale lock."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    def release(self) -> None:
        """Lets the next one in. The file stays: removing it would let two hold locks on two files of one name."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def _free(path: Path) -> str:
    try:
        return f"{shutil.disk_usage(path).free // 1024} KiB are free, or a quota is reached"
    except OSError:
        return "or a quota is reached"
