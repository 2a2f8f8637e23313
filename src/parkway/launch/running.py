"""How other commands find the Parkway that runs on a home: a small file, there while it runs."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import msgspec

from parkway.store.home import Home


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """Where the gateway is reached from this machine, and the process to signal."""

    url: str
    pid: int


def write(home: Home, running: Running) -> None:
    """Says that Parkway runs. Whole or not at all: readers never see half a file."""
    fresh = home.run_file.with_suffix(".new")
    fresh.write_bytes(msgspec.json.encode(running))
    fresh.replace(home.run_file)


def read(home: Home) -> Running | None:
    """What runs on `home`; None if nothing does, also where a kill -9 left the file behind."""
    try:
        running = msgspec.json.decode(home.run_file.read_bytes(), type=Running)
    except (OSError, msgspec.MsgspecError):
        return None
    return running if _alive(running.pid) else None


def remove(home: Home) -> None:
    """Says that Parkway no longer runs."""
    with contextlib.suppress(OSError):
        home.run_file.unlink()


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it exists and belongs to another user
    return not _is_zombie(pid)


def _is_zombie(pid: int) -> bool:
    """Whether it has ended and only waits for its parent to notice, which in a container may be never."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:1] == ["Z"]
    except OSError:
        return False
