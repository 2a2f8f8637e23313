"""How a model is computed on this machine: which layout its matrices get, and which kernels run."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F

from parkway.engine.adapters import Linear
from parkway.engine.attention import NativeAttention, PagedAttention
from parkway.engine.determinism import TiledAttention, make_deterministic, tiled_linear
from parkway.engine.linear import Bfloat16Linear, Int8Linear, Make, OneDnnLinear, Shelf, pack, rounded
from parkway.engine.model import Decoder
from parkway.engine.native import kernels


@dataclass(frozen=True, slots=True)
class Backend:
    """What the engine has to know of it.

    Fields:
        attention: attends over the cache.
        rows: to how many rows a step of so many tokens is filled up.
        linear: multiplies the matrices of adapters.
    """

    attention: type[PagedAttention] = PagedAttention
    rows: Callable[[int], int] = rounded
    linear: Linear = F.linear


def prepare(decoder: Decoder, *, quantization: str = "none", deterministic: bool = False) -> Backend:
    """Lay the matrices of `decoder` out for this machine, and say how it is to be run.

    Args:
        quantization: `int8`, or `none`.
        deterministic: a token's scores must not depend on what else is in the step.
    """
    dtype = next(decoder.parameters()).dtype
    make, apart = _layout(decoder, dtype, quantization)
    if make is not None:
        pack(decoder, make)
    rows = _as_they_are if apart else rounded
    attention = NativeAttention if NativeAttention.serves(decoder.shape, dtype) else PagedAttention
    if not deterministic:
        return Backend(attention, rows)
    if apart and attention is NativeAttention:
        return Backend(attention, rows, tiled_linear)
    make_deterministic(decoder)
    return Backend(TiledAttention, rounded, tiled_linear)


def _layout(decoder: Decoder, dtype: torch.dtype, quantization: str) -> tuple[Make | None, bool]:
    """What packs matrices, and whether a row's result then never depends on those beside it."""
    if quantization == "int8":
        return partial(Int8Linear, shelf=Shelf()), True
    if dtype != torch.bfloat16:
        return None, False
    tiles = torch.cpu._is_amx_tile_supported()
    if kernels() is not None and not tiles and decoder.shape.hidden_size % 2 == 0:
        return partial(Bfloat16Linear, shelf=Shelf()), True
    return OneDnnLinear if torch.backends.mkldnn.is_available() else None, False


def _as_they_are(rows: int) -> int:
    return rows
