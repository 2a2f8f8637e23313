"""How a model is computed on this machine: which layout its matrices get, and which kernels run."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from parkway.core.errors import ConfigurationError
from parkway.engine.adapters import Linear
from parkway.engine.attention import NativeAttention, PagedAttention
from parkway.engine.config import EngineConfig
from parkway.engine.determinism import TiledAttention, make_deterministic, tiled_linear
from parkway.engine.linear import (
    Bfloat16Linear,
    Int8Linear,
    Make,
    OneDnnInt8Linear,
    OneDnnLinear,
    Part,
    PlainLinear,
    Shelf,
    pack,
    rounded,
)
from parkway.engine.model import Decoder
from parkway.engine.native import kernels
from parkway.engine.shape import ModelShape

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Backend:
    """What the engine has to know of it.

    Fields:
        attention: attends over the cache.
        rows: to how many rows a step of so many tokens is filled up.
        linear: multiplies the matrices of adapters.
        graphs: steps that decode are recorded as CUDA graphs.
    """

    attention: type[PagedAttention] = PagedAttention
    rows: Callable[[int], int] = rounded
    linear: Linear = F.linear
    graphs: bool = False


def prepare(
    decoder: Decoder, *, quantization: str = "none", deterministic: bool = False, graphs: bool = True
) -> Backend:
    """Lay the matrices of `decoder` out for the device that they are on, and say how it is to be run.

    Args:
        quantization: `int8`, or `none`.
        deterministic: a token's scores must not depend on what else is in the step.
        graphs: record CUDA graphs where that is possible.
    """
    parameter = next(decoder.parameters())
    dtype, device = parameter.dtype, parameter.device
    make, apart = _layout(decoder, dtype, device, quantization)
    if make is not None:
        pack(decoder, make)
    rows = _as_they_are if apart or device.type != "cpu" else rounded
    attention = PagedAttention if deterministic and device.type == "cuda" else _attention(decoder.shape, dtype, device)
    if not deterministic:
        return Backend(attention, rows, graphs=graphs and attention.recordable)
    if apart and attention is NativeAttention:
        return Backend(attention, rows, tiled_linear)
    make_deterministic(decoder)
    return Backend(TiledAttention, rounded, tiled_linear)


def check_device(device: torch.device, config: EngineConfig) -> None:
    """See that the engine can do on `device` what `config` asks for; ConfigurationError where it cannot."""
    if device.type == "cpu":
        return
    for key, only in (("quantization", "none"), ("tensor_parallel", 1)):
        value = getattr(config, key)
        if value != only:
            raise ConfigurationError(
                f"{key} is {value!r}, which works on processors only, but the engine would run on {device}; set "
                f"{key}: {only}, or device: cpu"
            )


def _attention(shape: ModelShape, dtype: torch.dtype, device: torch.device) -> type[PagedAttention]:
    if device.type == "cpu" and NativeAttention.serves(shape, dtype):
        return NativeAttention
    if device.type != "cuda":
        return PagedAttention
    try:
        from parkway.engine.paged_triton import TritonAttention
    except ImportError as error:
        log.warning("no Triton (%s): torch's attention does its work, more slowly", error)
        return PagedAttention
    return TritonAttention if TritonAttention.usable(shape, dtype, device) else PagedAttention


def _layout(decoder: Decoder, dtype: torch.dtype, device: torch.device, quantization: str) -> tuple[Make | None, bool]:
    """What packs matrices, and whether a row's result then never depends on those beside it."""
    if device.type != "cpu":
        return PlainLinear, False
    ours, onednn = kernels() is not None, torch.backends.mkldnn.is_available()
    if quantization == "int8":
        if not ours and onednn and torch.cpu._is_amx_tile_supported():
            return OneDnnInt8Linear, False
        return partial(Int8Linear, shelf=Shelf()), True
    if dtype != torch.bfloat16:
        return None, False
    if ours and decoder.shape.hidden_size % 2 == 0:
        return partial(Bfloat16Linear, shelf=Shelf()), True
    return OneDnnLinear if onednn else None, False


def described(decoder: nn.Module, backend: Backend) -> dict[str, str]:
    """How a decoder is computed, for people: its device and type, and what multiplies and attends."""
    parameter = next(decoder.parameters())
    matrices = {
        type(module).__name__ + ("+AMX" if getattr(module, "tiled", False) else "")
        for module in decoder.modules()
        if isinstance(module, nn.Linear) and not isinstance(module, Part)
    }
    return {
        "device": str(parameter.device),
        "dtype": str(parameter.dtype).removeprefix("torch."),
        "matrices": " ".join(sorted(matrices)),
        "attention": backend.attention.__name__,
    }


def _as_they_are(rows: int) -> int:
    return rows
