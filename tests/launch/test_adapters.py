"""Adapters in the configuration: what is wrong with them is told before anything starts, with file, line and key."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from parkway.core.errors import ConfigurationError
from parkway.launch.adapters import adapter_options, check_adapters
from parkway.launch.settings import Settings
from tests.launch.stage import parkway

MODEL = """models:
  tiny:
    path: ./tiny
    adapters:
      legal: ./legal
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the adapter `legal` and the model `tiny`, of which only the kind is read here."""
    for name, file, content in (
        ("tiny", "config.json", {"model_type": "llama"}),
        ("legal", "adapter_config.json", {"peft_type": "LORA"}),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text(json.dumps(content))
    return tmp_path


def _check(folder: Path, text: str) -> None:
    file = folder / "parkway.yaml"
    file.write_text(text)
    check_adapters(Settings.find(file), file)


def _faults(folder: Path, text: str) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        _check(folder, text)
    return caught.value.message.replace(f"{folder}/", "").splitlines()


def test_options_name_each_adapter_and_its_directory() -> None:
    assert adapter_options({"a": "/x", "b": "/y=z"}) == ["--adapter", "a=/x", "--adapter", "b=/y=z"]


def test_what_is_there_is_no_fault(folder: Path) -> None:
    _check(folder, MODEL)
    _check(folder, "models:\n  mini: {path: park-mini, load: on_demand, adapters: {legal: legal}}\n")


def test_a_model_that_cannot_be_read_is_for_its_engine_to_tell(folder: Path) -> None:
    _check(folder, MODEL.replace("./tiny", "./nowhere"))


def test_every_fault_is_told_with_its_line(folder: Path) -> None:
    text = (
        MODEL
        + """      style: ./nowhere
  many:
    endpoints:
      - http://h
      - path: park-embed
        adapters:
          empty: ./tiny
  "tiny:legal": http://h
"""
    )
    assert _faults(folder, text) == [
        'parkway.yaml:5: models.tiny.adapters.legal: "tiny:legal" is another model under `models`; rename one of the '
        "two",
        "parkway.yaml:6: models.tiny.adapters.style: nowhere: no such directory; give the one that holds "
        "adapter_config.json",
        "parkway.yaml:11: models.many.endpoints.1.adapters: park-embed is a sentence encoder, which takes no adapters; "
        "remove them",
        "parkway.yaml:12: models.many.endpoints.1.adapters.empty: tiny: no adapter_config.json in it; give the "
        "directory of a LoRA adapter, as PEFT writes it",
    ]


def test_a_model_that_is_divided_takes_none(folder: Path) -> None:
    assert _faults(folder, MODEL + "engine: {tensor_parallel: 2}") == [
        "parkway.yaml:4: models.tiny.adapters: a model that is divided takes no adapters; remove them, or set "
        "`engine.tensor_parallel` to 1"
    ]


def test_the_start_is_refused(folder: Path) -> None:
    (folder / "parkway.yaml").write_text(MODEL.replace("./legal", "./leagl"))
    done = parkway(folder / "home", "up", "--port", "0")
    assert done.returncode == 2
    assert done.stderr == (
        f"error: parkway.yaml:5: models.tiny.adapters.legal: {folder}/leagl: no such directory; give the one that "
        "holds adapter_config.json\n"
    )
