"""Rotary position embeddings: the frequencies of every supported kind, and the rotation itself."""

import math

import torch
from torch import Tensor

from parkway.engine.native import serving
from parkway.engine.shape import Rope


def inverse_frequencies(rope: Rope, head_dim: int) -> Tensor:
    """Radians per position for each rotated pair: float32 [head_dim / 2], always on the CPU.

    Source: Su et al., 2021, arXiv:2104.09864; the stretched kinds are computed as the models' publishers
    compute them.
    """
    # The device is named because models are built under torch.device("meta"), which computes nothing.
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32, device="cpu") / head_dim
    plain = 1.0 / (rope.theta**exponents)
    match rope.type:
        case "linear":
            return plain / rope.factor
        case "llama3":
            return _llama3(plain, rope)
        case "yarn":
            return _yarn(plain, rope, head_dim)
        case _:
            return plain


def _llama3(plain: Tensor, rope: Rope) -> Tensor:
    """Stretch slow frequencies, keep fast ones, blend between. Source: the reference code of Llama 3.1."""
    wavelength = 2 * math.pi / plain
    blend = (rope.original_context / wavelength - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor)
    blend = blend.clamp(0.0, 1.0)
    return (1 - blend) * plain / rope.factor + blend * plain


def _yarn(plain: Tensor, rope: Rope, head_dim: int) -> Tensor:
    """Blend by how often a pair turns within the original context. Source: arXiv:2309.00071, section 3.2."""

    def dimension(rotations: float) -> float:
        turns = math.log(rope.original_context / (rotations * 2 * math.pi))
        return head_dim * turns / (2 * math.log(rope.theta))

    low, high = dimension(rope.beta_fast), dimension(rope.beta_slow)
    if rope.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, head_dim - 1)
    width = high - low if high != low else 0.001  # no division by zero
    pairs = torch.arange(head_dim // 2, dtype=torch.float32, device="cpu")
    stretched = ((pairs - low) / width).clamp(0.0, 1.0)
    return stretched * plain / rope.factor + (1 - stretched) * plain


def rotation(positions: Tensor, frequencies: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Cosine and sine for each position: [tokens] and [pairs] -> two float32 [tokens, 1, 2 * pairs]."""
    angles = positions[:, None].float() * frequencies
    angles = torch.cat((angles, angles), dim=-1)[:, None, :]
    return angles.cos() * scale, angles.sin() * scale


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the pairs (i, i + head_dim / 2) of x [tokens, heads, head_dim], as Hugging Face lays them out.

    `cos` and `sin`: as `rotation` makes them.
    """
    native = serving(x)
    if native is not None:
        return native.rotate(x, cos, sin)
    cos, sin = cos.to(x.dtype), sin.to(x.dtype)
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin
