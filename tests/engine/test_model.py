"""The decoder against transformers, number by number."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from parkway.engine.model import Decoder
from parkway.engine.shape import ModelShape
from tests.engine.tiny import CONFIGS, SIZES, reference, state_of


def causal(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention over one sequence, without a cache."""
    mixed = F.scaled_dot_product_attention(
        q.transpose(0, 1), k.transpose(0, 1), v.transpose(0, 1), is_causal=True, enable_gqa=True
    )
    return mixed.transpose(0, 1)


def decoder_like(model: Any, config: dict[str, Any]) -> Decoder:
    decoder = Decoder(ModelShape.from_config({**SIZES, **config}))
    decoder.load_state_dict(state_of(model))
    return decoder


@pytest.mark.parametrize("name", CONFIGS)
def test_logits_are_those_of_transformers(name: str) -> None:
    model = reference(CONFIGS[name])
    decoder = decoder_like(model, CONFIGS[name])
    token_ids = torch.randint(0, 320, (200,), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = model(token_ids[None]).logits[0]
        found = decoder.logits(decoder(token_ids, torch.arange(200), causal))
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


def test_what_nobody_asks_for_is_left_out_and_changes_nothing() -> None:
    config = CONFIGS["llama-grouped-llama3"]
    decoder = decoder_like(reference(config), config)
    token_ids, positions = torch.randint(0, 320, (20,), generator=torch.Generator().manual_seed(1)), torch.arange(20)
    wanted = torch.tensor([3, 19])
    seen: list[int] = []
    decoder.model.layers[-1].mlp.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    with torch.inference_mode():
        everything = decoder(token_ids, positions, causal)
        found = decoder(token_ids, positions, causal, None, wanted)
        beside_changes = decoder(token_ids, positions, causal, NoChanges(), wanted)
    torch.testing.assert_close(found, everything[wanted])
    torch.testing.assert_close(beside_changes, everything[wanted])
    assert seen == [20, 2, 20], "changes know their tokens by where they stand"


class NoChanges:
    def add(self, module: nn.Module, x: Tensor, y: Tensor) -> None:
        pass


def test_positions_matter() -> None:
    """Two tokens apart by another distance see each other otherwise: the rotation reaches attention."""
    config = CONFIGS["llama-grouped-llama3"]
    decoder = decoder_like(reference(config), config)
    token_ids = torch.tensor([3, 4, 5])
    with torch.inference_mode():
        near = decoder(token_ids, torch.tensor([0, 1, 2]), causal)
        far = decoder(token_ids, torch.tensor([0, 1, 90]), causal)
    assert not torch.allclose(near[2], far[2], atol=1e-4)


def test_angles_stay_exact_in_bfloat16() -> None:
    decoder = Decoder(ModelShape.from_config({**SIZES, "model_type": "llama"}))
    exact = decoder.frequencies.clone()
    decoder.to(torch.bfloat16)
    assert decoder.frequencies.dtype == torch.float32
    assert torch.equal(decoder.frequencies, exact)


@pytest.mark.parametrize("name", ["qwen3-grouped-yarn", "qwen2-grouped-tied"])
def test_every_parameter_gets_a_gradient(name: str) -> None:
    decoder = Decoder(ModelShape.from_config({**SIZES, **CONFIGS[name]}))
    token_ids = torch.arange(20)
    logits = decoder.logits(decoder(token_ids, token_ids, causal))
    F.cross_entropy(logits[:-1], token_ids[1:]).backward()
    without = [name for name, each in decoder.named_parameters() if each.grad is None or not each.grad.any()]
    assert without == []
