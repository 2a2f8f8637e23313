"""The models of this machine: those of the package and those that were pulled."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from parkway.core.errors import ModelFilesError, ModelNotFound, nearest
from parkway.engine.builtin import resolve
from parkway.launch import running
from parkway.launch.family import snapshot_of
from parkway.launch.model_facts import ModelFacts, read_facts
from parkway.launch.settings import BUILT_IN, Settings
from parkway.store.home import Home
from parkway.store.models import Manifest, PulledModels


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A model that an engine here can serve by its name.

    Attributes:
        manifest: Where it came from; None of a built-in model.
        facts: None where its files cannot be read; `problem` says why.
    """

    name: str
    path: Path
    manifest: Manifest | None
    facts: ModelFacts | None
    problem: str | None = None

    @property
    def source(self) -> str:
        return self.manifest.source if self.manifest else "built-in"

    @property
    def files(self) -> list[tuple[str, int]]:
        """Name and size in bytes of each file."""
        if self.manifest is not None:
            return [(file.name, file.size_bytes) for file in self.manifest.files]
        files = [path for path in self.path.rglob("*") if path.is_file()]
        return sorted((str(path.relative_to(self.path)), path.stat().st_size) for path in files)

    @property
    def size_bytes(self) -> int:
        return sum(size for _, size in self.files)


def local_models(home: Home) -> list[LocalModel]:
    """The built-in models, then the pulled ones by name."""
    pulled = [_described(model.name, model.path, model.manifest) for model in PulledModels(home).list()]
    return [_described(name, resolve(name), None) for name in BUILT_IN] + pulled


def local_model(home: Home, name: str) -> LocalModel:
    """The built-in or pulled model of this name.

    Raises:
        ModelNotFound: There is none; the message names the nearest one.
    """
    if name in BUILT_IN:
        return _described(name, resolve(name), None)
    models = PulledModels(home)
    model = models.find(name)
    if model is None:
        near = nearest(name, [*BUILT_IN, *(each.name for each in models.list())])
        raise ModelNotFound(f'no model here is called "{name}".{near} `parkway list` shows them')
    return _described(model.name, model.path, model.manifest)


def served_by(home: Home, path: Path) -> running.Running | None:
    """The running Parkway that serves the model directory `path`; None if none does."""
    found = running.read(home)
    if found is None:
        return None
    settings = Settings.find(snapshot_of(home))
    places = [place.path for model in settings.models.values() for place in model.all() if place.path]
    return found if any(Path(place).resolve() == path.resolve() for place in places) else None


def _described(name: str, path: Path, manifest: Manifest | None) -> LocalModel:
    try:
        return LocalModel(name, path, manifest, read_facts(path))
    except ModelFilesError as error:
        return LocalModel(name, path, manifest, None, error.message)
