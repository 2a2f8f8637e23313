"""The folder of pulled models: what is in the list, what is deleted, and who may change it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from parkway.core.errors import Conflict, InvalidRequest, ModelNotFound
from parkway.store.home import Home
from parkway.store.models import (
    MANIFEST,
    FileRecord,
    Manifest,
    PulledModels,
    is_plain_file_name,
    pulled_directory,
    readable_bytes,
)


@pytest.fixture
def models(tmp_path: Path) -> PulledModels:
    return PulledModels(Home.open(tmp_path / "home"))


def manifest(*files: str, commit: str = "a" * 40) -> Manifest:
    records = [FileRecord(name=name, size_bytes=3, sha256="0" * 64) for name in files]
    return Manifest(source="a/b", revision="main", commit=commit, endpoint="https://h", pulled_ms=1, files=records)


def put(models: PulledModels, name: str, commit: str = "a" * 40) -> None:
    with models.pulling(name) as partial:
        partial.file("config.json").write_bytes(b"{ }")
        partial.finish(manifest("config.json", commit=commit))


def test_a_model_is_in_the_list_once_it_is_whole(models: PulledModels) -> None:
    assert models.list() == []
    with models.pulling("m") as partial:
        partial.file("config.json").write_bytes(b"{ }")
        partial.part("model.safetensors", "0" * 64).write_bytes(b"of another revision")
        assert models.list() == []
        assert models.find("m") is None
        model = partial.finish(manifest("config.json"))
    assert models.list() == [model] == [models.find("m")]
    assert sorted(path.name for path in model.path.iterdir()) == ["config.json", MANIFEST]
    assert model.size_bytes == 3


def test_what_is_no_whole_model_is_not_in_the_list(models: PulledModels) -> None:
    put(models, "whole")
    for name, content in (("none", None), ("broken", b"{"), ("other", b"{}")):
        (models.folder / name).mkdir()
        if content is not None:
            (models.folder / name / MANIFEST).write_bytes(content)
    (models.folder / "file").write_text("")
    assert [model.name for model in models.list()] == ["whole"]


def test_a_failed_pull_leaves_its_files_and_no_empty_folder(models: PulledModels) -> None:
    with pytest.raises(ModelNotFound), models.pulling("m"):
        raise ModelNotFound("x")
    assert list((models.folder / ".partial").iterdir()) == []
    with pytest.raises(ModelNotFound), models.pulling("m") as partial:
        partial.file("a").write_bytes(b"kept")
        raise ModelNotFound("x")
    with models.pulling("m") as partial:
        assert partial.file("a").read_bytes() == b"kept"


def test_removing(models: PulledModels) -> None:
    put(models, "one")
    put(models, "two")
    size = sum(path.stat().st_size for path in (models.folder / "one").iterdir())
    assert models.remove("one") == size
    assert [model.name for model in models.list()] == ["two"]
    assert list((models.folder / ".partial").iterdir()) == []
    with pytest.raises(ModelNotFound, match=r'no pulled model is called "towo"\. Did you mean "two"'):
        models.remove("towo")


def test_removing_what_was_pulled_so_far(models: PulledModels) -> None:
    with models.pulling("m") as partial:
        partial.file("a").write_bytes(b"12345")
    assert models.remove("m") == 5
    with pytest.raises(ModelNotFound):
        models.remove("m")


def test_a_directory_of_somebody_else_is_not_removed(models: PulledModels) -> None:
    with models.pulling("own") as partial:
        partial.file("a").write_bytes(b"12345")
    (models.folder / "own").mkdir()
    (models.folder / "own" / "precious").write_text("x")
    assert models.remove("own") == 5
    assert (models.folder / "own" / "precious").exists()


@pytest.mark.parametrize("name", ["../x", "/etc", "a/b", ".partial", "..", ".", "", "a\n"])
def test_names_lead_nowhere_else(models: PulledModels, name: str) -> None:
    outside = models.folder.parent / "x"
    outside.mkdir()
    (outside / MANIFEST).write_bytes(msgspec.json.encode(manifest()))
    assert models.find(name) is None
    with pytest.raises(InvalidRequest):
        models.remove(name)
    with pytest.raises(InvalidRequest), models.pulling(name):
        pytest.fail("it may not be pulled")
    assert outside.exists()


def test_two_processes_do_not_pull_one_model(models: PulledModels) -> None:
    program = (
        "import sys; from pathlib import Path; from parkway.store.home import Home; "
        "from parkway.store.models import PulledModels\n"
        "with PulledModels(Home(Path(sys.argv[1]))).pulling('m'): print('in', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, str(models.folder.parent)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "in\n"
        busy = rf'"m" is being pulled or removed by another process \(pid {other.pid}\)'
        with pytest.raises(Conflict, match=busy), models.pulling("m"):
            pytest.fail("the other one has it")
        with pytest.raises(Conflict, match=busy):
            models.remove("m")
        put(models, "another")
        other.kill()
        other.wait()
    put(models, "m")


def test_a_name_stands_for_the_directory(models: PulledModels, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARKWAY_HOME", str(models.folder.parent))
    put(models, "m")
    assert pulled_directory("m") == models.folder / "m"
    assert pulled_directory("./m") is None
    assert pulled_directory("n") is None
    monkeypatch.setenv("PARKWAY_HOME", str(models.folder / "nowhere"))
    assert pulled_directory("m") is None
    assert not os.path.lexists(models.folder / "nowhere"), "asking makes nothing"


@pytest.mark.parametrize("name", ["../a", "a/b", "", ".a", "..", "a\\b", "a\x1b", "a\n", MANIFEST, "x" * 201])
def test_file_names_that_are_not_written(name: str) -> None:
    assert not is_plain_file_name(name)
    assert is_plain_file_name("model-00001-of-00003.safetensors")


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (99_949, "99.9 kB"), (99_950, "100 kB"), (999_500, "1.0 MB"),
     (1_503_300_328, "1.5 GB"), (7 * 10**14, "700 TB"), (10**16, "10000 TB")],
)  # fmt: skip
def test_sizes_for_people(count: int, text: str) -> None:
    assert readable_bytes(count) == text
