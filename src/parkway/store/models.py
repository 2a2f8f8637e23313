"""The models that were pulled: one directory each in the home, under its name only once it is whole."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from parkway.core.errors import Conflict, InvalidRequest, ModelNotFound, StartupError, nearest
from parkway.store.home import Home

MANIFEST = "parkway.json"
"""The file in a model's directory that says where it came from. It is written last: without it there is no model."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
_PLAIN_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._ -]{0,199}")
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class FileRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One file of a pulled model, as it was when it was checked."""

    name: str
    size_bytes: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """Where a pulled model came from, and what belongs to it.

    Attributes:
        source: The repository, `OWNER/NAME`.
        revision: What was asked for: a branch, a tag or a commit.
        commit: What that was when the model was pulled.
        pulled_ms: Milliseconds since 1970.
    """

    source: str
    revision: str
    commit: str
    endpoint: str
    pulled_ms: int
    files: list[FileRecord]


@dataclass(frozen=True, slots=True)
class PulledModel:
    """A whole model: its name and its directory in Hugging Face's layout."""

    name: str
    path: Path
    manifest: Manifest

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.manifest.files)


class PulledModels:
    """The folder `models` of a home. Names that begin with a dot are its own: no model can have one.

    `.partial/NAME` is a model on its way, `.locks/NAME` is held by who changes it, and `.replaced/NAME` is what a newer
    commit has just taken the place of.
    """

    def __init__(self, home: Home) -> None:
        self.folder = home.path / "models"

    def list(self) -> list[PulledModel]:
        """Every whole model, by name."""
        names = sorted(path.name for path in self.folder.iterdir()) if self.folder.is_dir() else []
        return [model for name in names if (model := self.find(name)) is not None]

    def find(self, name: str) -> PulledModel | None:
        """The whole model of this name, if there is one. Whatever is no name of a model is not found."""
        if _NAME.fullmatch(name) is None:
            return None
        path = self.folder / name
        try:
            manifest = msgspec.json.decode((path / MANIFEST).read_bytes(), type=Manifest)
        except (OSError, msgspec.MsgspecError):
            return None
        return PulledModel(name, path, manifest)

    def get(self, name: str) -> PulledModel:
        """The whole model of this name.

        Raises:
            ModelNotFound: There is none; the message names the nearest one.
        """
        model = self.find(name)
        if model is None:
            near = nearest(name, [each.name for each in self.list()])
            raise ModelNotFound(
                f'no pulled model is called "{name}".{near} `parkway list` shows them, `parkway pull` gets more'
            )
        return model

    def remove(self, name: str) -> int:
        """Deletes a model, and what was pulled of it so far. Returns how many bytes that freed.

        Raises:
            ModelNotFound: There is neither.
            Conflict: It is being pulled.
        """
        partial = self._place(".partial", check_name(name))
        if not partial.is_dir():
            self.get(name)
        with _explained(self.folder), self._lock(name):
            freed = _delete(partial)
            if (model := self.find(name)) is not None:
                # Out of the list at once: deleting takes a while and may be interrupted.
                partial.parent.mkdir(mode=0o700, exist_ok=True)
                model.path.rename(partial)
                freed += _delete(partial)
        return freed

    @contextmanager
    def pulling(self, name: str) -> Iterator[Partial]:
        """A place for the files of a model on its way. What an earlier pull has left in it is still there.

        Raises:
            Conflict: Another process is pulling it, or a directory that was not pulled has its name.
            StartupError: The folder cannot be used, or its disk is full; also from within the block.
        """
        with _explained(self.folder), self._lock(check_name(name)):
            target = self.folder / name
            if target.exists() and self.find(name) is None:
                raise Conflict(f"{target} is there and was not pulled; move it away, or choose another name: --name")
            path = self._place(".partial", name)
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                yield Partial(path, target, self._place(".replaced", name))
            finally:
                with suppress(OSError):  # it stays unless it is empty
                    path.rmdir()

    def _place(self, kind: str, name: str) -> Path:
        return self.folder / kind / name

    @contextmanager
    def _lock(self, name: str) -> Iterator[None]:
        """Keeps others from changing the model. The kernel ends it with the process."""
        path = self._place(".locks", name)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # The file stays: removing it would let two hold locks on two files of one name.
        with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+b") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                holder = file.read(32).decode(errors="replace").strip() or "just starting"
                raise Conflict(
                    f'"{name}" is being pulled or removed by another process (pid {holder}); wait until it has ended'
                ) from error
            file.truncate(0)
            file.write(f"{os.getpid()}\n".encode())
            file.flush()
            yield


@dataclass(frozen=True, slots=True)
class Partial:
    """A model on its way: what has its final name was checked, what ends in `.part` is not whole yet."""

    path: Path
    _target: Path
    _replaced: Path

    def file(self, name: str) -> Path:
        """Where the whole file belongs."""
        return self.path / name

    def part(self, name: str, digest: str) -> Path:
        """Where the file grows. Another content has another digest, so that it is never continued with this one."""
        return self.path / f"{name}.{digest[:16]}.part"

    def finish(self, manifest: Manifest) -> PulledModel:
        """Puts the model under its name, in the place of an older one. Either all of it is there or nothing."""
        wanted = {file.name for file in manifest.files}
        for left in self.path.iterdir():
            if left.name not in wanted:
                left.unlink()
        with (self.path / MANIFEST).open("wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(manifest), indent=1))
            file.flush()
            os.fsync(file.fileno())
        _sync(self.path)
        shutil.rmtree(self._replaced, ignore_errors=True)
        if self._target.exists():
            self._replaced.parent.mkdir(mode=0o700, exist_ok=True)
            self._target.rename(self._replaced)
        self.path.rename(self._target)
        _sync(self._target.parent)
        shutil.rmtree(self._replaced, ignore_errors=True)
        return PulledModel(self._target.name, self._target, manifest)


def check_name(name: str) -> str:
    """The name, if a model may have it.

    Raises:
        InvalidRequest: It may not: names become directories, so nothing in them leads elsewhere.
    """
    if _NAME.fullmatch(name) is None:
        raise InvalidRequest(
            f"{name[:200]!r} cannot be the name of a pulled model; it takes 1 to 128 of A-Z a-z 0-9 . _ : - "
            "and begins with a letter or a digit"
        )
    return name


def is_plain_file_name(name: str) -> bool:
    """Whether a name that somebody else chose is safe to write to: one part, nothing hidden, nothing odd."""
    return _PLAIN_FILE.fullmatch(name) is not None and name != MANIFEST


def pulled_directory(name: str) -> Path | None:
    """The directory of the pulled model of this name on this process's home; None if there is none."""
    try:
        home = Home(Path(os.environ.get("PARKWAY_HOME") or "~/.parkway").expanduser().absolute())
    except RuntimeError:  # no home directory of the user is known
        return None
    model = PulledModels(home).find(name)
    return model.path if model else None


def readable_bytes(count: int) -> str:
    """A size for people, in decimal units: `1.5 GB`."""
    size, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 999.5:
            break
        size, unit = size / 1000, larger
    return f"{size:.0f} {unit}" if unit == "B" or size >= 99.95 else f"{size:.1f} {unit}"


def _delete(folder: Path) -> int:
    """Deletes a folder, if there is one. Returns how many bytes were in it."""
    if not folder.is_dir():
        return 0
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    shutil.rmtree(folder)
    return size


def _sync(folder: Path) -> None:
    """Makes renames within a folder outlast a power failure."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """Turns what the disk says into what to do about it."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_ROOM:
            free = readable_bytes(shutil.disk_usage(folder).free) if folder.is_dir() else "nothing"
            raise StartupError(
                f"the disk of {folder} is full, or a limit on sizes is reached ({free} free); what has come is "
                "kept: make room and give the same command again to go on, or drop it with `parkway rm NAME`"
            ) from error
        raise StartupError(f"{error.filename or folder}: {error.strerror or error}") from error
