"""What models need, from their files, and what processes use."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from parkway.core.errors import ModelFilesError
from parkway.engine.config import EngineConfig
from parkway.launch.memory import PROCESS_BYTES, default_limit_bytes, need_of, own_bytes, resident_bytes
from parkway.launch.model_facts import read_facts
from tests.engine.tiny import CONFIGS, write_directory

CONFIG = EngineConfig(dtype="float32", max_sequences=2, cache_bytes=1 << 40)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_directory(tmp_path_factory.mktemp("tiny") / "m", CONFIGS["qwen2-grouped-tied"])


def test_weights_count_in_the_type_that_they_are_computed_in(tiny: Path) -> None:
    parameters = read_facts(tiny).parameters
    assert need_of(str(tiny), CONFIG).weights_bytes == parameters * 4
    assert need_of(str(tiny), CONFIG.model_copy(update={"dtype": "bfloat16"})).weights_bytes == parameters * 2
    assert need_of(str(tiny), CONFIG.model_copy(update={"quantization": "int8"})).weights_bytes == parameters


def test_adapters_count_in_the_type_of_the_model(tiny: Path, tmp_path: Path) -> None:
    for name, numbers in (("a", 1000), ("b", 500)):
        (tmp_path / name).mkdir()
        save_file({"lora": torch.zeros(numbers)}, tmp_path / name / "adapter_model.safetensors")
    alone = need_of(str(tiny), CONFIG)
    together = need_of(str(tiny), CONFIG, [str(tmp_path / "a"), str(tmp_path / "b")])
    assert together.weights_bytes - alone.weights_bytes == 1500 * 4


def test_the_cache_counts_up_to_what_answers_can_fill_or_to_what_it_may_have(tiny: Path) -> None:
    # 256 tokens of context x 2 answers x 2; keys and values, 3 layers, 2 heads of 16, 4 bytes.
    assert need_of(str(tiny), CONFIG).cache_bytes == 256 * 2 * 2 * (2 * 3 * 2 * 16 * 4)
    assert need_of(str(tiny), CONFIG.model_copy(update={"cache_bytes": 1000})).cache_bytes == 1000


def test_an_encoder_has_no_cache() -> None:
    need = need_of("park-embed", EngineConfig())
    assert need.cache_bytes == 0
    assert need.least_bytes == need.total_bytes == need.weights_bytes + PROCESS_BYTES


def test_the_numbers_can_be_read(tiny: Path) -> None:
    assert str(need_of(str(tiny), CONFIG)).endswith("cache up to 786 kB, 300 MB beside)")


@pytest.mark.parametrize("fault", ["no directory", "no weights", "no sizes"])
def test_what_cannot_be_read_is_told(tmp_path: Path, tiny: Path, fault: str) -> None:
    path = tmp_path / "m"
    if fault != "no directory":
        path.mkdir()
        config = json.loads((tiny / "config.json").read_text())
        if fault == "no sizes":
            (path / "model.safetensors").write_bytes((tiny / "model.safetensors").read_bytes())
            del config["hidden_size"]
        (path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelFilesError):
        need_of(str(path), CONFIG)


def test_resident_memory_of_a_process() -> None:
    mine = resident_bytes(os.getpid())
    assert mine is not None
    assert 10_000_000 < mine < default_limit_bytes()
    assert resident_bytes(2**22 + 1) is None, "beyond the largest process id"
    own = own_bytes(os.getpid())
    assert own is not None
    assert 5_000_000 < own < mine, "without what is mapped of files"
    assert own_bytes(2**22 + 1) is None
