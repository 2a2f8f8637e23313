"""Loading weights: whole, sharded, damaged, and by pickle not at all."""

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from parkway.core.errors import ModelFilesError
from parkway.engine.device import choose_dtype
from parkway.engine.directory import ModelDirectory
from parkway.engine.weights import load_decoder
from tests.engine.tiny import random_tensors, write_directory, write_weights

LLAMA = {"model_type": "llama"}
TIED = {"model_type": "llama", "tie_word_embeddings": True}


def load(path: Path, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    return load_decoder(ModelDirectory(path), dtype).state_dict()


@pytest.mark.parametrize("shards", [1, 3])
def test_every_tensor_arrives(tmp_path: Path, shards: int) -> None:
    tensors = random_tensors(LLAMA)
    loaded = load(write_directory(tmp_path, LLAMA, tensors=tensors, shards=shards))
    assert loaded.keys() == tensors.keys()
    assert all(torch.equal(loaded[name], tensors[name]) for name in tensors)


def test_weights_are_converted(tmp_path: Path) -> None:
    loaded = load(write_directory(tmp_path, LLAMA), torch.bfloat16)
    assert {tensor.dtype for tensor in loaded.values()} == {torch.bfloat16}


def test_a_file_that_changes_afterwards_changes_nothing(tmp_path: Path) -> None:
    tensors = random_tensors(LLAMA)
    loaded = load(write_directory(tmp_path, LLAMA, tensors=tensors))
    with (tmp_path / "model.safetensors").open("r+b") as file:
        file.truncate(100)
    assert all(torch.equal(loaded[name], tensors[name]) for name in tensors)


def test_what_some_checkpoints_carry_besides_is_ignored(tmp_path: Path) -> None:
    tensors = random_tensors(TIED)
    extra = {
        "lm_head.weight": tensors["model.embed_tokens.weight"].clone(),
        "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8),
    }
    loaded = load(write_directory(tmp_path, TIED, tensors=tensors | extra))
    assert loaded.keys() == tensors.keys()


def test_an_untied_model_needs_its_head(tmp_path: Path) -> None:
    tensors = random_tensors(LLAMA)
    del tensors["lm_head.weight"]
    with pytest.raises(ModelFilesError, match=r"missing lm_head\.weight"):
        load(write_directory(tmp_path, LLAMA, tensors=tensors))


def test_names_that_do_not_fit_are_listed(tmp_path: Path) -> None:
    tensors = random_tensors(LLAMA)
    tensors["score.weight"] = tensors.pop("model.norm.weight")
    with pytest.raises(ModelFilesError, match=r"missing model\.norm\.weight; unexpected score\.weight"):
        load(write_directory(tmp_path, LLAMA, tensors=tensors))


def test_a_wrong_shape_is_named_with_both_shapes(tmp_path: Path) -> None:
    tensors = random_tensors(LLAMA)
    tensors["model.norm.weight"] = torch.ones(63)
    with pytest.raises(ModelFilesError, match=r"model\.norm\.weight has the shape \[63\].*\[64\]"):
        load(write_directory(tmp_path, LLAMA, tensors=tensors))


def test_integers_are_no_weights(tmp_path: Path) -> None:
    tensors = random_tensors(LLAMA)
    tensors["model.norm.weight"] = torch.ones(64, dtype=torch.int8)
    with pytest.raises(ModelFilesError, match="I8"):
        load(write_directory(tmp_path, LLAMA, tensors=tensors))


@pytest.mark.parametrize("keep", [0, 4, 200, -100])
def test_a_truncated_file_is_named(tmp_path: Path, keep: int) -> None:
    write_directory(tmp_path, LLAMA)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(ModelFilesError, match=r"model\.safetensors: not a whole safetensors file"):
        load(tmp_path)


def test_a_corrupt_header_is_named(tmp_path: Path) -> None:
    write_directory(tmp_path, LLAMA)
    file = tmp_path / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[8:40] = b"\xff" * 32
    file.write_bytes(data)
    with pytest.raises(ModelFilesError, match=r"model\.safetensors: not a whole"):
        load(tmp_path)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    write_directory(tmp_path, LLAMA, shards=3)
    (tmp_path / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(ModelFilesError, match="model-00002-of-00003"):
        load(tmp_path)


def test_a_shard_without_its_tensor_is_named(tmp_path: Path) -> None:
    write_directory(tmp_path, LLAMA, shards=2)
    save_file({"something": torch.ones(1)}, tmp_path / "model-00001-of-00002.safetensors")
    with pytest.raises(ModelFilesError, match="model-00001-of-00002"):
        load(tmp_path)


@pytest.mark.parametrize(
    "index",
    [
        {},
        {"weight_map": ["a"]},
        {"weight_map": {"lm_head.weight": "../elsewhere.safetensors"}},
        {"weight_map": {"lm_head.weight": "/etc/passwd"}},
        {"weight_map": {"lm_head.weight": "weights.bin"}},
    ],
)
def test_an_index_may_not_point_anywhere(tmp_path: Path, index: object) -> None:
    write_directory(tmp_path, LLAMA, shards=2)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelFilesError, match=r"index\.json"):
        load(tmp_path)


class _Bomb:
    """Unpickling it leaves a file behind."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return (Path.write_text, (self.trace, "was here"))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth"])
def test_pickles_are_refused_unread(tmp_path: Path, name: str) -> None:
    write_directory(tmp_path / "model", LLAMA)
    (tmp_path / "model" / "model.safetensors").unlink()
    (tmp_path / "model" / name).write_bytes(pickle.dumps(_Bomb(tmp_path / "trace")))
    with pytest.raises(ModelFilesError, match=f"pickled weights.*{name}"):
        load(tmp_path / "model")
    assert not (tmp_path / "trace").exists()


def test_a_pickle_under_a_safetensors_name_is_refused_unread(tmp_path: Path) -> None:
    write_directory(tmp_path / "model", LLAMA)
    (tmp_path / "model" / "model.safetensors").write_bytes(pickle.dumps(_Bomb(tmp_path / "trace")))
    with pytest.raises(ModelFilesError, match="not a whole safetensors file"):
        load(tmp_path / "model")
    assert not (tmp_path / "trace").exists()


def test_what_is_no_model_directory_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(ModelFilesError, match="no such directory"):
        ModelDirectory(tmp_path / "absent")
    with pytest.raises(ModelFilesError, match=r"no config\.json"):
        ModelDirectory(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama"')
    with pytest.raises(ModelFilesError, match=r"config\.json: cannot be read as JSON"):
        ModelDirectory(tmp_path).config  # noqa: B018
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ModelFilesError, match="expected a JSON object"):
        ModelDirectory(tmp_path).config  # noqa: B018


def test_single_file_without_any_weights(tmp_path: Path) -> None:
    write_directory(tmp_path, LLAMA)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ModelFilesError, match=r"no model\.safetensors"):
        load(tmp_path)


def test_dtype_by_name() -> None:
    assert choose_dtype("float32") == torch.float32
    assert choose_dtype("bfloat16") == torch.bfloat16
    assert choose_dtype("auto") in (torch.float32, torch.bfloat16)


def test_more_missing_names_than_fit_a_message_are_counted(tmp_path: Path) -> None:
    path = write_directory(tmp_path, LLAMA)
    write_weights(path, {"one": torch.ones(1)})
    with pytest.raises(ModelFilesError, match=r"and \d+ more"):
        load(path)
