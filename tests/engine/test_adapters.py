"""LoRA adapters: the same answers as with the changes merged into the weights, alone and side by side."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from parkway.core.errors import Conflict, InvalidRequest, ModelFilesError, ModelNotFound
from parkway.engine.adapters import Adapters
from parkway.engine.generator import Generator
from tests.engine.test_engine import finish, load, new
from tests.engine.tiny import CONFIGS, reference, state_of, write_directory

QWEN3 = CONFIGS["qwen3-grouped-yarn"]
LAYERS = ("self_attn.q_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.down_proj")


def write_adapter(path: Path, tensors: dict[str, Tensor], seed: int, **config: Any) -> dict[str, Tensor]:
    """Write a random adapter for the model of `tensors`; returns what it adds to each of its matrices."""
    generator = torch.Generator().manual_seed(seed)
    rank, added, files = 4, {}, {}
    for name, weight in tensors.items():
        module = name.removesuffix(".weight")
        if module.endswith(LAYERS):
            down = torch.randn(rank, weight.shape[1], generator=generator) * 0.3
            up = torch.randn(weight.shape[0], rank, generator=generator) * 0.3
            files[f"base_model.model.{module}.lora_A.weight"] = down
            files[f"base_model.model.{module}.lora_B.weight"] = up
            added[name] = up @ down
    path.mkdir()
    save_file(files, path / "adapter_model.safetensors")
    written = {"peft_type": "LORA", "r": rank, "lora_alpha": 8, "bias": "none", **config}
    (path / "adapter_config.json").write_text(json.dumps(written))
    return added


@pytest.fixture(scope="module")
def tensors() -> dict[str, Tensor]:
    return state_of(reference(QWEN3))


@pytest.fixture
def generator(tensors: dict[str, Tensor], tmp_path: Path) -> Generator:
    return load(write_directory(tmp_path / "base", QWEN3, tensors=tensors), step_tokens=24)


def merged(path: Path, tensors: dict[str, Tensor], added: dict[str, Tensor], scale: float) -> Generator:
    """The model whose weights have the adapter's changes in them."""
    whole = {name: weight + scale * added[name] if name in added else weight for name, weight in tensors.items()}
    return load(write_directory(path, QWEN3, tensors=whole))


def answer(generator: Generator, adapter: str | None, prompt: list[int]) -> list[int]:
    sequence = new(generator, prompt, 30)
    sequence.adapter = None if adapter is None else generator.adapters.get(adapter)
    finish(generator, sequence)
    return sequence.tokens


@pytest.mark.parametrize(
    ("config", "scale"), [({}, 2.0), ({"use_rslora": True}, 4.0), ({"alpha_pattern": {"mlp.down_proj": 8}}, 2.0)]
)
def test_an_adapter_does_what_merging_it_would(
    generator: Generator, tensors: dict[str, Tensor], tmp_path: Path, config: dict[str, Any], scale: float
) -> None:
    added = write_adapter(tmp_path / "adapter", tensors, 1, **config)
    generator.adapters.load("a", tmp_path / "adapter")
    expected = merged(tmp_path / "merged", tensors, added, scale)
    prompt = [5, 6, 7, 8] * 10
    assert answer(generator, "a", prompt) == answer(expected, None, prompt)
    assert answer(generator, "a", prompt) != answer(generator, None, prompt)


def test_several_adapters_in_one_batch_with_one_prompt(
    generator: Generator, tensors: dict[str, Tensor], tmp_path: Path
) -> None:
    """The prompt is the same, its keys and values are not: none of them may be shared."""
    names: list[str | None] = [None, "a", "b"]
    for seed, name in enumerate(names[1:]):
        write_adapter(tmp_path / str(name), tensors, seed)
        generator.adapters.load(str(name), tmp_path / str(name))
    prompt = [5, 6, 7, 8] * 20
    alone = {name: answer(generator, name, prompt) for name in names}
    assert len({tuple(tokens) for tokens in alone.values()}) == 3
    crowd = [(name, new(generator, prompt, 30)) for name in [*names, *names]]
    for name, sequence in crowd:
        sequence.adapter = None if name is None else generator.adapters.get(name)
    finish(generator, *(sequence for _, sequence in crowd))
    for name, sequence in crowd:
        assert sequence.tokens == alone[name]


def test_another_adapter_under_the_same_name_finds_nothing_of_the_first(
    generator: Generator, tensors: dict[str, Tensor], tmp_path: Path
) -> None:
    prompt = [5, 6, 7, 8] * 20
    answers = []
    for seed in (1, 2):
        write_adapter(tmp_path / str(seed), tensors, seed)
        generator.adapters.load("a", tmp_path / str(seed))
        answers.append(answer(generator, "a", prompt))
        generator.adapters.unload("a")
    assert answers[0] != answers[1]
    with pytest.raises(ModelNotFound):
        generator.adapters.get("a")


def test_names_are_checked_and_taken_once(generator: Generator, tensors: dict[str, Tensor], tmp_path: Path) -> None:
    write_adapter(tmp_path / "adapter", tensors, 1)
    generator.adapters.load("style", tmp_path / "adapter")
    with pytest.raises(Conflict, match="loaded already"):
        generator.adapters.load("style", tmp_path / "adapter")
    with pytest.raises(InvalidRequest, match="cannot be an adapter's name"):
        generator.adapters.load("a:b", tmp_path / "adapter")
    with pytest.raises(ModelNotFound, match='Did you mean "style"'):
        generator.adapters.get("styel")
    assert list(generator.adapters) == ["style"]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"peft_type": "IA3"}, "only LORA"),
        ({"use_dora": True}, "use_dora"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"bias": "all"}, "bias"),
        ({"lora_alpha": "x"}, "lora_alpha"),
    ],
)
def test_what_would_work_wrongly_is_refused(
    generator: Generator, tensors: dict[str, Tensor], tmp_path: Path, config: dict[str, Any], message: str
) -> None:
    write_adapter(tmp_path / "adapter", tensors, 1, **config)
    with pytest.raises(ModelFilesError, match=message):
        generator.adapters.load("a", tmp_path / "adapter")


def test_files_that_do_not_fit_are_refused(generator: Generator, tensors: dict[str, Tensor], tmp_path: Path) -> None:
    adapters: Adapters = generator.adapters
    with pytest.raises(ModelFilesError, match=r"adapter_config\.json"):
        adapters.load("a", tmp_path / "nowhere")
    write_adapter(tmp_path / "adapter", tensors, 1)
    weights = tmp_path / "adapter" / "adapter_model.safetensors"
    module = "base_model.model.model.layers.0.self_attn.q_proj"
    down, up = torch.zeros(4, 64), torch.zeros(128, 4)
    for files, message in (
        ({f"{module}.lora_A.weight": down}, "one half"),
        ({f"{module}.lora_A.weight": down, f"{module}.lora_B.weight": up.T.contiguous()}, "shapes"),
        ({f"{module}.lora_A.weight": torch.zeros(4, 63), f"{module}.lora_B.weight": up}, "takes 64"),
        ({"base_model.model.model.embed_tokens.lora_embedding_A": down}, "no linear layer"),
        ({"base_model.model.lm_head.lora_A.weight": down}, "no linear layer"),
    ):
        save_file(files, weights)
        with pytest.raises(ModelFilesError, match=message):
            adapters.load("a", tmp_path / "adapter")
    weights.write_bytes(b"nonsense")
    with pytest.raises(ModelFilesError, match="cannot be read"):
        adapters.load("a", tmp_path / "adapter")
    weights.unlink()
    (tmp_path / "adapter" / "adapter_model.bin").write_bytes(b"")
    with pytest.raises(ModelFilesError, match="is a pickle"):
        adapters.load("a", tmp_path / "adapter")
    assert list(adapters) == []
