"""Configuration that changes while Parkway runs: all of it or nothing, and never half-way.

A part registers how it takes new settings. When a file changes, the whole configuration is read and checked, every part
makes ready what it needs, and only if none of them objects do all of them change, in one turn of the event loop. A file
that is wrong changes nothing: what was in force stays so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from parkway.core.configuration import Section
from parkway.core.errors import ParkwayError
from parkway.launch.settings import EndpointConfig, ModelConfig, Settings

Commit = Callable[[], None]
"""Puts what was made ready into force: quick, and cannot fail. Runs on the event loop."""

Prepare = Callable[[Settings], Commit]
"""Makes ready what new settings need and changes nothing yet; a ConfigurationError refuses them. Runs on a thread."""

INTERVAL_S = 0.5
"""Between two looks at the files. A change is read at the second look that finds it the same: it is complete then."""

_HOST_KEYS = ("url", "model", "api_key_env", "weight")
HOSTS = "models.*.url"
"""The key under which all changes of places at other servers are told, and of engines none."""

Stamp = tuple[tuple[int, int, int] | None, ...]


@dataclass(frozen=True, slots=True)
class _Part:
    prepare: Prepare
    patterns: tuple[str, ...]
    files: Callable[[Settings], Iterable[Path]] | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a change.

    Attributes:
        error: Why the configuration as it is written now cannot be used; None where it is in force.
        changed: The keys that have other values now, and the further files that have other contents.
        pending: Those of them that take effect at the next start.
    """

    error: str | None = None
    changed: tuple[str, ...] = ()
    pending: tuple[str, ...] = ()


class Reload:
    """The settings in force, and the parts that take new ones.

    Args:
        settings: What everything was started with.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._parts: list[_Part] = []

    def register(
        self, prepare: Prepare, *patterns: str, files: Callable[[Settings], Iterable[Path]] | None = None
    ) -> None:
        """Has `prepare` called when a key changes that is, or lies under, one of `patterns`.

        Args:
            patterns: Keys with dots, `*` for any part: `limits`, `router.max_attempts`, `models.*.price`. Keys that
                nobody registers take effect at the next start, and it is said so.
            files: Further files that the part reads; then it is called whenever any file has changed.
        """
        self._parts.append(_Part(prepare, patterns, files))

    def files(self, settings: Settings) -> list[Path]:
        """The files that parts read besides the configuration itself."""
        return [path for part in self._parts if part.files is not None for path in part.files(settings)]

    async def take(self, settings: Settings) -> Outcome:
        """Puts `settings` into force.

        Raises:
            ConfigurationError: A part cannot work with them; nothing has changed.
        """
        changed = tuple(changes(self.settings, settings))
        concerned = [part for part in self._parts if part.files is not None or any(_live(key, part) for key in changed)]
        commits = await asyncio.to_thread(lambda: [part.prepare(settings) for part in concerned])
        # From here to the end nothing waits, so that no request sees one part changed and another not.
        for commit in commits:
            commit()
        self.settings = settings
        pending = tuple(key for key in changed if not any(_live(key, part) for part in self._parts))
        return Outcome(changed=changed, pending=pending)


@dataclass(frozen=True, slots=True)
class Source:
    """Where the configuration is read from.

    Args:
        path: The file. That it does not exist is no fault as long as it never did.
        adjust: What stands above the file: options of the command line.
    """

    path: Path
    adjust: Callable[[Settings], Settings] = lambda settings: settings

    def read(self) -> Settings:
        """The configuration as it is written now, with all checked that needs no part of it.

        Raises:
            ConfigurationError: Something is wrong with it.
        """
        settings = self.adjust(Settings.find(self.path))
        settings.check_environment()
        return settings


class Watcher:
    """Looks at the files of the configuration, and has a change taken.

    Args:
        tell: Told what came of each change, once.
    """

    def __init__(self, reload: Reload, source: Source, tell: Callable[[Outcome], None]) -> None:
        self._reload = reload
        self._source = source
        self._tell = tell
        self._files = [source.path, *reload.files(reload.settings)]
        # What is not there when Parkway starts was not asked for; what goes away later is missed.
        self._taken: Stamp | None = None if source.path.exists() else _stamp_of(self._files)
        self._seen: Stamp | None = None
        self._valid = True

    async def look(self) -> None:
        """One look, of which there has to be one every `INTERVAL_S`. The first ones take what changed before them."""
        stamp = await asyncio.to_thread(_stamp_of, self._files)
        settled, self._seen = stamp == self._seen, stamp
        if not settled or stamp == self._taken:
            return
        before = {} if self._taken is None else dict(zip(self._files, self._taken, strict=True))
        self._taken = stamp
        try:
            settings = await asyncio.to_thread(self._source.read)
            # Watched also while they are refused: a file that they name and that is missing may come.
            self._files = [self._source.path, *self._reload.files(settings)]
            self._taken = self._seen = await asyncio.to_thread(_stamp_of, self._files)
            if self._taken[0] != stamp[0]:  # it changed while it was read
                self._taken = None
                return
            outcome = await self._reload.take(settings)
            now = dict(zip(self._files, self._taken, strict=True))
            others = [f"what is in {path}" for path in self._files[1:] if path in before and before[path] != now[path]]
            outcome = replace(outcome, changed=(*outcome.changed, *others))
        except ParkwayError as error:
            if await asyncio.to_thread(_stamp_of, self._files[:1]) != stamp[:1]:  # likewise
                self._taken = None
                return
            outcome = Outcome(error=error.message)
        was_valid, self._valid = self._valid, outcome.error is None
        if outcome.error is not None or outcome.changed or not was_valid:
            self._tell(outcome)


def _stamp_of(paths: Iterable[Path]) -> Stamp:
    """What changes when one of the files does; through links, as containers replace mounted files."""
    return tuple(_stamp_of_one(path) for path in paths)


def _stamp_of_one(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def permission_files(settings: Settings) -> list[Path]:
    """The files that permissions are read from."""
    return [] if settings.permissions.file is None else [Path(settings.permissions.file)]


def _live(key: str, part: _Part) -> bool:
    return any(fnmatchcase(key, pattern) or fnmatchcase(key, f"{pattern}.*") for pattern in part.patterns)


def changes(old: Settings, new: Settings) -> Iterator[str]:
    """The keys whose values differ, with dots between their parts."""
    for name in Settings.model_fields:
        if name == "models":
            for model in sorted(old.models.keys() | new.models.keys()):
                yield from _model_changes(f"models.{model}", old.models.get(model), new.models.get(model))
        elif name == "knowledge":
            if old.knowledge.keys() != new.knowledge.keys():
                yield name
            for collection in sorted(old.knowledge.keys() & new.knowledge.keys()):
                yield from _changes(f"{name}.{collection}", old.knowledge[collection], new.knowledge[collection])
        else:
            yield from _changes(name, getattr(old, name), getattr(new, name))


def _changes(path: str, old: Any, new: Any) -> Iterator[str]:
    if isinstance(old, Section) and type(old) is type(new):
        for name in type(old).model_fields:
            yield from _changes(f"{path}.{name}", getattr(old, name), getattr(new, name))
    elif old != new or (isinstance(old, dict) and list(old) != list(new)):  # classes of requests have an order
        yield path


def _model_changes(path: str, old: ModelConfig | None, new: ModelConfig | None) -> Iterator[str]:
    """Hosts and engines apart, because hosts can change now and engines cannot."""
    for key, fields in (("url", _HOST_KEYS), ("path", tuple(EndpointConfig.model_fields))):
        if _places(old, key, fields) != _places(new, key, fields):
            yield f"{path}.{key}"
    for key in ("max_concurrency", "accepts"):  # of hosts, and what the router was told of them when it began
        default = EndpointConfig.model_fields[key].default
        if _given(old, key, default) != _given(new, key, default):
            yield f"{path}.{key}"
    for name, field in ModelConfig.model_fields.items():
        if name not in EndpointConfig.model_fields and name != "endpoints":
            yield from _changes(f"{path}.{name}", *(getattr(model, name, field.default) for model in (old, new)))


def _places(model: ModelConfig | None, key: str, fields: Sequence[str]) -> list[dict[str, Any]]:
    """The places that have a `key`, by their `fields`."""
    places = [] if model is None else [place for place in model.all() if getattr(place, key)]
    return [{name: getattr(place, name) for name in fields} for place in places]


def _given(model: ModelConfig | None, key: str, default: Any) -> list[Any]:
    """What the hosts of a model have as `key` where it is not the default."""
    values = [] if model is None else [getattr(place, key) for place in model.all() if place.url]
    return [value for value in values if value != default]
