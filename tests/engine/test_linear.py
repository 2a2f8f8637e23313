"""Matrices in oneDNN's layout: the same results, for every number of rows."""

from pathlib import Path

import pytest
import torch
from torch import nn

from parkway.engine.linear import PackedLinear, pack
from tests.engine.test_engine import load
from tests.engine.tiny import CONFIGS, write_directory


@pytest.mark.parametrize("rows", [1, 2, 16, 33, 300])
@pytest.mark.parametrize("biased", [False, True])
def test_a_packed_layer_multiplies_as_before(rows: int, biased: bool) -> None:
    linear = nn.Linear(48, 80, bias=biased, dtype=torch.bfloat16)
    x = torch.randn(rows, 48, dtype=torch.bfloat16)
    packed = PackedLinear(linear.weight.detach(), linear.bias.detach() if biased else None)
    torch.testing.assert_close(packed(x), linear(x), rtol=2e-2, atol=2e-2)
    torch.testing.assert_close(packed(x[:, None].transpose(0, 1)[0]), packed(x))


@pytest.mark.parametrize("name", ["qwen2-grouped-tied", "llama-grouped-llama3"])
def test_every_matrix_of_a_bfloat16_model_is_packed_and_its_head_too(name: str, tmp_path: Path) -> None:
    path = write_directory(tmp_path, CONFIGS[name])
    decoder = load(path, dtype="bfloat16").engine._decoder
    assert {type(module) for module in decoder.modules() if isinstance(module, nn.Linear)} == {PackedLinear}
    plain = load(path).engine._decoder
    assert not any(isinstance(module, PackedLinear) for module in plain.modules())
    hidden = torch.randn(3, 64)
    torch.testing.assert_close(decoder.logits(hidden.bfloat16()).float(), plain.logits(hidden), rtol=5e-2, atol=5e-2)


def test_a_float32_model_stays_as_it_is(tmp_path: Path) -> None:
    decoder = load(write_directory(tmp_path, CONFIGS["llama-grouped-llama3"])).engine._decoder
    before = [type(module) for module in decoder.modules()]
    pack(decoder)  # pyright: ignore[reportArgumentType]
    assert [type(module) for module in decoder.modules()] == before
