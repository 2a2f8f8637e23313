"""`parkway pull`: a repository of a hub becomes a local model, or a clear reason why not."""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from parkway.core.errors import Conflict, EndpointFailed, InvalidRequest, ModelFilesError, RateLimited, StartupError
from parkway.engine.shape import MODEL_TYPES, ModelShape
from parkway.launch.hub import Hub, RemoteFile, Repository, check
from parkway.launch.settings import BUILT_IN
from parkway.store.models import (
    FileRecord,
    Manifest,
    Partial,
    PulledModel,
    PulledModels,
    check_name,
    is_plain_file_name,
    readable_bytes,
)

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
POOLING = "1_Pooling/config.json"
BESIDE = (
    "generation_config.json",
    "tokenizer*.json",
    "chat_template.jinja",
    "sentence_bert_config.json",
    "README.md",
    "LICEN[CS]E*",
    "NOTICE*",
)
"""What is pulled beside config.json and the weights where it is there: what the engine reads, and the terms."""

SPARE_BYTES = 1024 * 1024
"""What a pull leaves of the disk: without it Parkway itself could not start on the home."""

_SMALL_BYTES = 32 * 1024 * 1024
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_REFERENCE = re.compile(r"(?P<repo_id>[\w][\w.-]*/[\w][\w.-]*?)(?:@(?P<revision>[!-~]{1,200}))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Reference:
    """What is to be pulled: `OWNER/NAME`, or `OWNER/NAME@REVISION`."""

    repo_id: str
    revision: str = "main"

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Reads what was typed.

        Raises:
            InvalidRequest: It is no reference to a repository.
        """
        match = _REFERENCE.fullmatch(text)
        if match is None or len(match["repo_id"]) > 96 or re.search(r"--|\.\.", match["repo_id"]):
            raise InvalidRequest(
                f"{text[:200]!r} is no repository; expected OWNER/NAME or OWNER/NAME@REVISION, such as Qwen/Qwen3-0.6B"
            )
        return cls(match["repo_id"], match["revision"] or "main")

    @property
    def name(self) -> str:
        """What the model is called unless somebody chooses."""
        return self.repo_id.partition("/")[2]


class Progress(Protocol):
    """Who is told how it goes."""

    def say(self, line: str) -> None:
        """Something worth a line."""
        ...

    def begin(self, action: str, file: RemoteFile, have_bytes: int) -> None:
        """A file is being pulled or checked; `have_bytes` of it are behind."""
        ...

    def advance(self, size_bytes: int) -> None:
        """So much more of the file; negative where bytes have to come again."""
        ...

    def end(self) -> None:
        """The file is done with."""
        ...


def pull(hub: Hub, models: PulledModels, reference: Reference, name: str, progress: Progress) -> PulledModel:
    """Makes `reference` a local model called `name`, all of it or nothing. What a broken pull left is used.

    Raises:
        InvalidRequest, Conflict: The name cannot be used, or is.
        ModelFilesError: The engine could not run the model, or a file is not what the hub lists.
        StartupError: The disk has not enough room.
        ParkwayError: What the hub refuses; see `Hub`.
    """
    _check_free(models, reference, name)
    repository = hub.repository(reference.repo_id, reference.revision)
    with models.pulling(name) as partial:
        current = models.find(name)
        if current is not None and current.manifest.commit == repository.commit:
            progress.say(f"{name} is here already, whole, at commit {repository.commit[:12]}")
            return current
        files = _choose(hub, repository)
        _check_room(models, partial, repository, files, progress)
        try:
            records = [_fetch(hub, repository, file, partial, progress) for file in files]
        except (EndpointFailed, RateLimited):
            progress.say("what has come is kept: the same command goes on from there")
            raise
        return partial.finish(
            Manifest(
                source=reference.repo_id,
                revision=reference.revision,
                commit=repository.commit,
                endpoint=hub.endpoint,
                pulled_ms=int(time.time() * 1000),
                files=records,
            )
        )


def _check_free(models: PulledModels, reference: Reference, name: str) -> None:
    """Sees that the name may be taken: it is free, or holds an older commit of the same repository."""
    if check_name(name) in BUILT_IN:
        raise Conflict(f'"{name}" is a built-in model; choose another name: --name')
    current = models.find(name)
    if current is not None and current.manifest.source != reference.repo_id:
        raise Conflict(
            f'"{name}" is here already, from {current.manifest.source}; choose another name with --name, or remove it: '
            f"parkway rm {name}"
        )


def _choose(hub: Hub, repository: Repository) -> list[RemoteFile]:
    """The files to pull, small ones first. config.json is read before anything is stored."""
    config = _read_json(hub, repository, CONFIG)
    check_supported(config)
    if config["model_type"] == "bert" and POOLING in repository.files:
        _check_pooling(_read_json(hub, repository, POOLING))
    if "tokenizer.json" not in repository.files:
        raise ModelFilesError(f"{repository.repo_id} has no tokenizer.json, which the engine reads; nothing is pulled")
    beside = [
        file
        for file in repository.files.values()
        if is_plain_file_name(file.name) and any(fnmatch.fnmatchcase(file.name, pattern) for pattern in BESIDE)
    ]
    weights = [repository.files[name] for name in _weights(hub, repository)]
    return [repository.files[CONFIG], *sorted(beside, key=lambda file: file.name), *weights]


def check_supported(config: Mapping[str, Any]) -> None:
    """Sees that the engine runs what a config.json describes.

    Raises:
        ModelFilesError: It does not.
    """
    model_type = config.get("model_type")
    if model_type == "bert":
        # Imported late: it brings torch, which takes seconds.
        from parkway.engine.encoder import EncoderShape

        EncoderShape.from_config(config)
    elif model_type in MODEL_TYPES:
        ModelShape.from_config(config)
    else:
        raise ModelFilesError(
            f"config.json: model_type is {str(model_type)[:80]!r}; the engine runs {', '.join(MODEL_TYPES)}, "
            "and bert for embeddings"
        )


def _check_pooling(config: Mapping[str, Any]) -> None:
    """Sees that a sentence encoder averages its tokens: the engine would make wrong vectors of any other."""
    modes = {key.removeprefix("pooling_mode_") for key, value in config.items() if value is True and "_mode_" in key}
    if isinstance(config.get("pooling_mode"), str):
        modes.add(config["pooling_mode"])
    if other := modes - {"mean_tokens", "mean"}:
        raise ModelFilesError(f"{POOLING}: pools by {', '.join(sorted(other))[:80]}; the engine pools by mean only")


def _weights(hub: Hub, repository: Repository) -> list[str]:
    """The names of the weight files that the engine would load."""
    files = repository.files
    if INDEX in files:
        weight_map = _read_json(hub, repository, INDEX).get("weight_map")
        named = list(weight_map.values()) if isinstance(weight_map, dict) else []
        shards = sorted({str(name) for name in named})
        wrong = [name for name in shards if not is_plain_file_name(name) or not name.endswith(".safetensors")]
        if wrong or not shards:
            raise ModelFilesError(
                f"{INDEX}: names {wrong[:1] or 'nothing'} as weights; expected .safetensors beside it"
            )
        if missing := [name for name in shards if name not in files]:
            raise ModelFilesError(f"{INDEX}: names {missing[0]!r}, which {repository.repo_id} does not have")
        return [INDEX, *shards]
    if WEIGHTS in files:
        return [WEIGHTS]
    raise ModelFilesError(f"{repository.repo_id} {_why_no_weights(files)}; nothing is pulled")


def _why_no_weights(files: Mapping[str, RemoteFile]) -> str:
    pickles = [name for name in sorted(files) if name.endswith(_PICKLES) and is_plain_file_name(name)]
    if pickles:
        return (
            f"has only pickled weights ({', '.join(pickles[:3])}); loading a pickle can run any code in it. Look for a "
            "repository with safetensors, or for a revision of this one that has them"
        )
    if any(name.endswith(".gguf") for name in files):
        return f"has weights as GGUF, which the engine does not read; look for the repository with {WEIGHTS}"
    return f"has neither {WEIGHTS} nor {INDEX}"


def _read_json(hub: Hub, repository: Repository, name: str) -> dict[str, Any]:
    """A small JSON object of the repository, read without storing it."""
    if name not in repository.files:
        raise ModelFilesError(f"{repository.repo_id} has no {name}, so it is no model that the engine runs")
    try:
        value = json.loads(hub.read(repository, repository.files[name], _SMALL_BYTES))
    except (ValueError, RecursionError) as error:
        raise ModelFilesError(f"{name} of {repository.repo_id} cannot be read as JSON: {error}") from error
    if not isinstance(value, dict):
        raise ModelFilesError(f"{name} of {repository.repo_id} holds {type(value).__name__}; expected a JSON object")
    return value


def _check_room(
    models: PulledModels, partial: Partial, repository: Repository, files: list[RemoteFile], progress: Progress
) -> None:
    """Says how large it is, and sees that the disk has room for what is still to come."""
    total = sum(file.size_bytes for file in files)
    here = sum(_have(partial, file) for file in files)
    free = shutil.disk_usage(models.folder).free
    had = f", of which {readable_bytes(here)} are here already" if here else ""
    progress.say(f"{repository.repo_id} at {repository.commit[:12]}: {len(files)} files, {readable_bytes(total)}{had}")
    if total - here > free - SPARE_BYTES:
        raise StartupError(
            f"{readable_bytes(total - here)} are to come, and the disk of {models.folder} has {readable_bytes(free)} "
            f"free, of which {readable_bytes(SPARE_BYTES)} are kept for Parkway itself; make room, or set PARKWAY_HOME "
            "to another disk"
        )


def _have(partial: Partial, file: RemoteFile) -> int:
    """How many bytes of the file are there, checked or not."""
    paths = (partial.file(file.name), partial.part(file.name, file.digest))
    return max(min(path.stat().st_size, file.size_bytes) if path.is_file() else 0 for path in paths)


def _fetch(hub: Hub, repository: Repository, file: RemoteFile, partial: Partial, progress: Progress) -> FileRecord:
    """One file: what is missing of it is pulled, all of it is checked, and what is wrong is deleted."""
    part, whole = partial.part(file.name, file.digest), partial.file(file.name)
    if whole.exists():
        # Of a broken pull, maybe of another commit.
        try:
            return _checked(whole, file, progress)
        except ModelFilesError:
            whole.unlink()
    try:
        with part.open("ab") as out:
            if out.tell() < file.size_bytes:
                progress.begin("pulling", file, out.tell())
                hub.download(repository, file, out, progress.advance)
                progress.end()
            out.flush()
            os.fsync(out.fileno())
        record = _checked(part, file, progress)
    except ModelFilesError:
        part.unlink()
        raise
    part.replace(whole)
    return record


def _checked(path: Path, file: RemoteFile, progress: Progress) -> FileRecord:
    """What is written down of a file that is what the hub lists."""
    progress.begin("checking", file, 0)
    try:
        with path.open("rb") as content:
            sha256 = check(file, content, progress.advance)
    finally:
        progress.end()
    return FileRecord(name=file.name, size_bytes=file.size_bytes, sha256=sha256)
