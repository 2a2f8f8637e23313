"""The directory of an embedded index: whose it is, and what the index in it was made for."""

from __future__ import annotations

import errno
import fcntl
import os
from contextlib import suppress
from pathlib import Path

import msgspec

from parkway.core.errors import ConfigurationError, IndexDamaged, IndexUnavailable
from parkway.retrieval.index.journal import sync_directory

FORMAT = 1


class About(msgspec.Struct, frozen=True):
    """index.json.

    Attributes:
        generation: The name of its directory.
        journal: The file from which on it has not what the journal says; it may be older, as replicas read along.
        removed: Something was removed of which the files still have the text.
        fields: Keys of fields whose numbers are to get an index.
        open: Everybody may see every passage that was ever written.
    """

    format: int
    dimensions: int
    language: str
    generation: str
    mark: int
    journal: int = 0
    removed: bool = False
    fields: tuple[str, ...] = ()
    open: bool = False


def read_about(directory: Path, dimensions: int, language: str) -> About | None:
    """What index.json says; None where there is no index yet.

    Raises:
        IndexDamaged: It cannot be read, or is missing.
        ConfigurationError: The index was made for other dimensions, or another language.
    """
    path = directory / "index.json"
    try:
        about = msgspec.json.decode(path.read_bytes(), type=About)
    except FileNotFoundError:
        if any((directory / "journal").glob("*.log")):
            raise IndexDamaged(damaged(directory, "index.json is missing")) from None
        return None
    except (OSError, msgspec.MsgspecError) as error:
        raise IndexDamaged(damaged(directory, f"index.json cannot be read: {error}")) from error
    if about.format != FORMAT:
        raise IndexDamaged(damaged(directory, f"it has the format {about.format}, not {FORMAT}"))
    for name, is_now in (("dimensions", dimensions), ("language", language)):
        if (was := getattr(about, name)) != is_now:
            raise ConfigurationError(
                f"the index in {directory} was made for the {name} {was}, the configuration says {is_now}. "
                "Change it back, or remove the directory and have the documents indexed anew"
            )
    return about


def write_about(directory: Path, about: About) -> None:
    write_whole(directory / "index.json", msgspec.json.encode(about))


def lock(path: Path) -> int:
    """Takes the directory for this process until the descriptor is closed.

    Raises:
        IndexUnavailable: Another process has it; the message has its id.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        owner = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(descriptor)
        if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
            raise
        raise IndexUnavailable(
            f"the index in {path.parent} belongs to another process (id {owner}): ask that one over HTTP, or end it"
        ) from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, str(os.getpid()).encode(), 0)
    return descriptor


def write_whole(path: Path, content: bytes) -> None:
    """Replaces a file; whatever happens, the old one is there or the new one."""
    beside = path.with_suffix(".new")
    with beside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    sync_directory(path.parent)


def damaged(directory: Path, what: str) -> str:
    """The message of `IndexDamaged`."""
    return (
        f"the index in {directory} cannot be used: {what}. Nothing but the index is lost: "
        "remove the directory, and its documents are indexed anew"
    )


def disk_bytes(directory: Path) -> int:
    """What its files take of the disk; holes in them take nothing, and what generations share counts once."""
    blocks: dict[int, int] = {}
    for folder, _, names in os.walk(directory):  # passes over folders that are removed meanwhile
        for name in names:
            with suppress(FileNotFoundError):
                found = os.stat(os.path.join(folder, name))  # noqa: PTH116, PTH118 - thousands of times
                blocks[found.st_ino] = found.st_blocks
    return sum(blocks.values()) * 512
