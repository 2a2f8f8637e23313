"""Matrices laid out for the processor: the same results, for every number of rows."""

import gc
from pathlib import Path

import pytest
import torch
from torch import nn

from parkway.engine import native
from parkway.engine.backend import prepare
from parkway.engine.linear import (
    Bfloat16Linear,
    Int8Linear,
    OneDnnInt8Linear,
    OneDnnLinear,
    PackedEmbedding,
    Part,
    Shelf,
)
from tests.engine.test_engine import finish, load, new
from tests.engine.tiny import CONFIGS, reference, state_of, write_directory


@pytest.mark.parametrize("rows", [1, 2, 16, 33, 300])
@pytest.mark.parametrize("biased", [False, True])
def test_a_packed_layer_multiplies_as_before(rows: int, biased: bool) -> None:
    linear = nn.Linear(48, 80, bias=biased, dtype=torch.bfloat16)
    x = torch.randn(rows, 48, dtype=torch.bfloat16)
    packed = OneDnnLinear([linear.weight.detach()], linear.bias.detach() if biased else None)
    torch.testing.assert_close(packed(x), linear(x), rtol=2e-2, atol=2e-2)
    torch.testing.assert_close(packed(x[:, None].transpose(0, 1)[0]), packed(x))


@pytest.mark.parametrize(("rows", "inputs", "channels"), [(1, 64, 48), (5, 100, 70), (40, 896, 130)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_8_bits_are_the_same_whoever_multiplies(rows: int, inputs: int, channels: int, dtype: torch.dtype) -> None:
    weight, bias, x = torch.randn(channels, inputs), torch.randn(channels), torch.randn(rows, inputs).to(dtype)
    ours, theirs = Int8Linear([weight], bias, Shelf()), OneDnnInt8Linear([weight], bias)
    exact = {"rtol": 1e-5, "atol": 1e-4} if dtype == torch.float32 else {"rtol": 1e-2, "atol": 1e-2}
    torch.testing.assert_close(theirs(x), ours(x), **exact)


@pytest.mark.parametrize("name", ["qwen2-grouped-tied", "llama-grouped-llama3"])
@pytest.mark.parametrize("kind", [OneDnnLinear, Bfloat16Linear, Int8Linear, OneDnnInt8Linear])
def test_every_matrix_of_a_bfloat16_model_is_packed_and_its_head_too(
    name: str,
    kind: type[nn.Linear],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    onednn = kind in (OneDnnLinear, OneDnnInt8Linear)
    if kind is Bfloat16Linear and native.kernels() is None:
        pytest.skip("the kernels were not built, or this processor lacks AVX-512 VNNI and BF16")
    if onednn:
        request.getfixturevalue("no_kernels")
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: onednn)
    path = write_directory(tmp_path, CONFIGS[name])
    quantization = "int8" if kind in (Int8Linear, OneDnnInt8Linear) else "none"
    decoder = load(path, dtype="bfloat16", quantization=quantization).engine._decoder
    kinds = {type(module) for module in decoder.modules() if isinstance(module, nn.Linear)}
    assert kinds - {Part} == {kind}
    plain = load(path).engine._decoder
    assert not any(isinstance(module, kind) for module in plain.modules())
    hidden = torch.randn(3, 64)
    torch.testing.assert_close(decoder.logits(hidden.bfloat16()).float(), plain.logits(hidden), rtol=5e-2, atol=5e-2)
    tied = decoder.shape.tied_embeddings
    assert isinstance(decoder.model.embed_tokens, PackedEmbedding) == (tied and not onednn)


@pytest.mark.parametrize("processor", [None, "no_kernels", "emulated_tiles"])
def test_answers_in_bfloat16_are_nearly_those_in_float32(
    processor: str | None, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """With our kernels, without them, and as it is on processors that multiply tiles."""
    if processor is not None:
        request.getfixturevalue(processor)
    path = write_directory(tmp_path, CONFIGS["qwen3-grouped-yarn"])
    scores: list[torch.Tensor] = []
    for dtype in ("float32", "bfloat16"):
        generator = load(path, dtype=dtype, step_tokens=24)
        sequence = new(generator, list(range(3, 90)), 1, logprobs=1)
        sequence.scores_prompt = True
        finish(generator, sequence, *(new(generator, [4, 5] * length, 8) for length in (1, 9, 30)))
        scores.append(torch.tensor([each.logprob for each in sequence.scored]))
    assert (scores[0] - scores[1]).abs().mean() < 0.1


@pytest.mark.usefixtures("emulated_tiles")
def test_a_model_says_that_tiles_multiply_it(tmp_path: Path) -> None:
    path = write_directory(tmp_path, CONFIGS["qwen3-grouped-yarn"])
    for quantization, expected in (("none", "Bfloat16Linear+AMX"), ("int8", "Int8Linear+AMX")):
        generator = load(path, dtype="bfloat16", quantization=quantization)
        assert generator.engine.computing["matrices"] == expected


def test_a_float32_model_stays_as_it_is(tmp_path: Path) -> None:
    decoder = load(write_directory(tmp_path, CONFIGS["llama-grouped-llama3"])).engine._decoder
    before = [type(module) for module in decoder.modules()]
    prepare(decoder)  # pyright: ignore[reportArgumentType]
    assert [type(module) for module in decoder.modules()] == before


@pytest.mark.parametrize("name", ["qwen2-grouped-tied", "llama-full-tied-biased-linear", "llama-grouped-llama3"])
@pytest.mark.parametrize("settings", [{}, {"dtype": "bfloat16"}, {"dtype": "bfloat16", "quantization": "int8"}])
@pytest.mark.parametrize("onednn", [False, True])
def test_nothing_of_a_loaded_model_stays_in_its_files(
    name: str,
    settings: dict[str, str],
    onednn: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    """Somebody may rewrite them; a process that then reads what it has mapped is killed."""
    if onednn:
        request.getfixturevalue("no_kernels")
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: onednn)
    config = CONFIGS[name]
    dtype = torch.bfloat16 if "dtype" in settings else torch.float32
    tensors = {key: tensor.to(dtype) for key, tensor in state_of(reference(config)).items()}
    path = write_directory(tmp_path, config, tensors=tensors)
    generator = load(path, **settings)
    gc.collect()
    maps = Path("/proc/self/maps")
    assert maps.is_file()
    assert str(path) not in maps.read_text()
    (path / "model.safetensors").write_bytes(b"")
    sequence = new(generator, [1, 2, 3], 3)
    finish(generator, sequence)
    assert sequence.completion_tokens == 3
