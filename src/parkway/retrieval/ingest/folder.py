"""A folder with all below it, or a single file. Links are not followed: what is told to be in the folder is in it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote_to_bytes

from parkway.core.errors import Unreadable
from parkway.retrieval.document import Value
from parkway.retrieval.ingest.pattern import Patterns
from parkway.retrieval.ingest.source import MAX_URI, Away, Content, Entry, Missing, SourceUnavailable, Unknown
from parkway.retrieval.parsing.file import read_open

_MAX_DEPTH = 256
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW


@dataclass(frozen=True)
class Folder:
    """A `Source` of files.

    Attributes:
        root: Absolute. A link here is followed: it is what was asked for.
        name: A part of the identity of each document.
        home: Parkway's own. It is passed over with all that lies in it, keys for one.
    """

    root: Path
    name: str = ""
    patterns: Patterns = field(default_factory=Patterns)
    access: tuple[str, ...] | None = None
    metadata: Mapping[str, Value] = field(default_factory=dict)
    home: Path | None = None

    def entries(self) -> Iterator[Entry | Unknown]:
        try:
            about = self.root.stat()
        except OSError as error:
            # A disk that is not mounted looks like this: nothing of it is taken to be gone.
            raise SourceUnavailable(f"{self.root}: {error.strerror}") from error
        own = self.own
        if own == self.root:
            raise SourceUnavailable(f"{self.root} is Parkway's own home, which holds keys; name a folder in it")
        if stat.S_ISDIR(about.st_mode):
            yield from self._walk(self.root, 0, own)
        else:
            yield self._file(self.root, about)

    def place(self) -> tuple[int, int] | None:
        """The numbers of its disk and of itself on it: others once another is mounted there. None: it is not there."""
        try:
            about = self.root.stat()
        except OSError:
            return None
        return about.st_dev, about.st_ino

    def vacant(self) -> bool:
        """Whether it is a folder with nothing in it at all, as the place of a disk is that is not mounted."""
        try:
            with os.scandir(self.root) as found:
                return next(found, None) is None
        except OSError:
            return False

    def at(self, path: Path) -> Iterator[Entry | Unknown]:
        """What there is at a path in the folder, and below it; nothing if it is gone or does not belong to it.

        Raises:
            SourceUnavailable: The folder itself is not there.
        """
        if not self.root.exists():
            raise SourceUnavailable(f"{self.root} is not there")
        if path == self.root:
            yield from self.entries()
            return
        if (own := self.own) is not None and path.is_relative_to(own):
            return
        try:
            parts = path.relative_to(self.root).parts
        except ValueError:
            return
        above = self.root
        for part in parts[:-1]:
            above = above / part
            if above.is_symlink() or not self.patterns.enter(self._below(above)):
                return
        try:
            about = path.lstat()
        except OSError:
            return
        yield from self._one(path, about, len(parts), own)

    def uri(self, path: Path) -> str:
        """Of a file: printable whatever its name is."""
        return path.as_uri()

    def read(self, uri: str, most: int) -> Content:
        path = Path(os.fsdecode(unquote_to_bytes(uri.removeprefix("file://"))))
        try:
            descriptor = self._open(path)
        except Missing as error:
            if path == self.root or self.vacant():  # its disk may not be mounted; a scan says what is gone
                raise Away(f"{self.root} is empty, or is not there") from error
            raise
        return Content(read_open(descriptor, most), path.name)

    @property
    def own(self) -> Path | None:
        """Where in this folder Parkway's home is, under whatever name it was reached."""
        root, home = self.root.resolve(), self.home.resolve() if self.home is not None else None
        return self.root / home.relative_to(root) if home is not None and home.is_relative_to(root) else None

    def _open(self, path: Path) -> int:
        """Opens a file, going down from the root without following a link that may have been put there since."""
        if path == self.root:
            return _opened(os.fspath(path), os.O_NONBLOCK, None, follow=True)
        try:
            parts = path.relative_to(self.root).parts
        except ValueError as error:
            raise Missing(f"{path} is not in {self.root}") from error
        if ".." in parts:
            raise Missing(f"{path} is not in {self.root}")
        try:
            held = _opened(os.fspath(self.root), os.O_DIRECTORY, None, follow=True)
        except Missing as error:
            raise Away(f"{self.root} is not there") from error
        try:
            for part in parts[:-1]:
                below = _opened(part, os.O_DIRECTORY, held)
                os.close(held)
                held = below
            return _opened(parts[-1], os.O_NONBLOCK, held)
        finally:
            os.close(held)

    def _walk(self, folder: Path, depth: int, own: Path | None) -> Iterator[Entry | Unknown]:
        if depth > _MAX_DEPTH:
            yield Unknown(f"{folder.as_uri()}/", f"is more than {_MAX_DEPTH} folders deep")
            return
        try:
            with os.scandir(folder) as found:
                names = sorted(one.name for one in found)
        except OSError as error:
            if depth == 0:
                raise SourceUnavailable(f"{folder}: {error.strerror}") from error
            if not isinstance(error, FileNotFoundError | NotADirectoryError):
                yield Unknown(f"{folder.as_uri()}/", error.strerror or "cannot be listed")
            return
        for name in names:
            path = folder / name
            try:
                about = path.lstat()
            except FileNotFoundError:
                continue
            except OSError as error:
                yield Unknown(path.as_uri(), error.strerror or "cannot be looked at")
                continue
            yield from self._one(path, about, depth + 1, own)

    def _one(self, path: Path, about: os.stat_result, depth: int, own: Path | None) -> Iterator[Entry | Unknown]:
        below = self._below(path)
        if stat.S_ISDIR(about.st_mode):
            if self.patterns.enter(below) and path != own:
                yield from self._walk(path, depth, own)
        elif not self.patterns.take(below):
            return
        elif stat.S_ISLNK(about.st_mode):
            if (refused := self._out(path)) is not None:
                yield refused
        elif stat.S_ISREG(about.st_mode):
            yield self._file(path, about)

    def _out(self, path: Path) -> Entry | None:
        """What is said of a link out of the folder; None of one within it, whose target is listed by itself."""
        try:
            target = path.resolve()
        except (OSError, RuntimeError):
            return None  # a circle
        if target.is_relative_to(self.root.resolve()):
            return None
        return self._entry(path, "link", 0, "is a symbolic link out of its folder, which is not followed")

    def _file(self, path: Path, about: os.stat_result) -> Entry:
        # The time of the last change to the file's own record cannot be set back, as that of its content can.
        fingerprint = f"{about.st_size}-{about.st_mtime_ns}-{about.st_ctime_ns}"
        return self._entry(path, fingerprint, about.st_size)

    def _entry(self, path: Path, fingerprint: str, size: int, refused: str = "") -> Entry:
        uri = path.as_uri()
        if len(uri) > MAX_URI:
            digest = f"{uri[:1000]}..."
            return Entry(digest, fingerprint, refused=f"has a path of more than {MAX_URI:,} characters")
        return Entry(uri, fingerprint, bytes=size, access=self.access, metadata=self.metadata, refused=refused)

    def _below(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()


def _opened(name: str, flags: int, folder: int | None, *, follow: bool = False) -> int:
    try:
        return os.open(name, (_FLAGS & ~os.O_NOFOLLOW if follow else _FLAGS) | flags, dir_fd=folder)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise Missing(f"{name}: {error.strerror}") from error
    except PermissionError as error:
        raise Unreadable(f"cannot be opened: {error.strerror}") from error
    except OSError as error:
        if error.errno in _OF_LINKS:
            raise Missing(f"{name} is a link now") from error
        raise Away(f"{name}: {error.strerror}") from error


_OF_LINKS = (40, 62)  # ELOOP, of Linux and of macOS
