"""Matrices laid out once for the processor's own instructions, instead of at every multiplication; and in 8 bits."""

import contextlib
import math
import mmap
from collections.abc import Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from parkway.engine.model import MLP, Decoder, SelfAttention
from parkway.engine.native import Kernels, Tiles, kernels

_CHUNK = 256 << 20  # only what is used of it takes memory
_ALIGN = 64
_ROWS = 32  # a hint to oneDNN; measured with 1, 32 and 256, the layout is as good for any number
_PANEL = 64  # channels that stand side by side in our own layout
_LARGEST = 127


class Shelf:
    """Memory for matrices, in huge pages where the system gives them: these are read 15 % faster."""

    def __init__(self) -> None:
        self._chunk = torch.empty(0, dtype=torch.uint8)
        self._used = 0

    def room(self, size: Sequence[int], dtype: torch.dtype) -> Tensor:
        """A tensor that lies here and was never written to."""
        count = math.prod(size) * dtype.itemsize
        if self._used + count > len(self._chunk):
            self._chunk = _huge(max(count, _CHUNK))
            self._used = 0
        place = self._chunk[self._used : self._used + count]
        self._used += -(-count // _ALIGN) * _ALIGN
        return place.view(dtype).view(size)


def _huge(size: int) -> Tensor:
    pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a system without them
            pages.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(pages, dtype=torch.uint8)


class _Packed(nn.Linear):
    """A linear layer whose matrix is not a parameter any more."""

    def __init__(self, weights: Sequence[Tensor]) -> None:
        nn.Module.__init__(self)
        self.out_features = sum(len(weight) for weight in weights)
        self.in_features = weights[0].shape[1]

    @property
    def tiled(self) -> bool:
        """Whether our kernels multiply it with tiles (AMX)."""
        return False


class PlainLinear(_Packed):
    """A matrix as torch has it."""

    def __init__(self, weights: Sequence[Tensor], bias: Tensor | None) -> None:
        """`weights`: [out, in]; one below the other they are the matrix."""
        super().__init__(weights)
        self._weight, self._bias = torch.cat([*weights]), None if bias is None else bias.clone()

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self._weight, self._bias)


class OneDnnLinear(_Packed):
    """A matrix as oneDNN wants it: where our kernels do not run."""

    def __init__(self, weights: Sequence[Tensor], bias: Tensor | None) -> None:
        """`weights`: bfloat16 [out, in] on the CPU; one below the other they are the matrix."""
        super().__init__(weights)
        self._packed = torch.ops.mkldnn._reorder_linear_weight(torch.cat([*weights]), _ROWS)
        self._bias = None if bias is None else bias.clone()

    def forward(self, input: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(input.contiguous(), self._packed, self._bias, "none", [], "")


class Bfloat16Linear(_Packed):
    """A bfloat16 matrix in panels, for our own kernel. A token's result does not depend on the tokens beside it.

    Measured against oneDNN with 2 threads on a processor with AVX-512 (896 x 4864): 0.34 ms instead of 0.5 for one row,
    0.35 instead of 0.45 for 8, and as fast for many. Where the processor has tiles (AMX) these multiply, if `in` is a
    multiple of 32; that was not measured yet.
    """

    def __init__(self, weights: Sequence[Tensor], bias: Tensor | None, shelf: Shelf) -> None:
        """`weights`: bfloat16 [out, in] on the CPU, `in` even; one below the other they are the matrix."""
        super().__init__(weights)
        self._packed = shelf.room((_panels(self.out_features), self.in_features // 2, _PANEL, 2), torch.bfloat16)
        _native().pack_bfloat16(weights, self._packed)
        self._bias = None if bias is None else bias.to(torch.float32, copy=True)

    @property
    def addresses(self) -> tuple[int, int, int]:
        """Where the matrix, scales (there are none) and bias lie; 0 is nowhere."""
        return self._packed.data_ptr(), 0, _address(self._bias)

    @property
    def tiled(self) -> bool:
        return _native().bfloat16_tiles is not Tiles.NONE and self.in_features % 32 == 0

    def forward(self, input: Tensor) -> Tensor:
        return _native().linear_bfloat16(input, self._packed, self._bias, self.out_features)

    def rows(self, indices: Tensor) -> Tensor:
        """Rows of the matrix: int64 [n] -> bfloat16 [n, in]."""
        return self._packed[indices // _PANEL, :, indices % _PANEL].flatten(1)


class Int8Linear(_Packed):
    """A matrix in 8 bits, one scale for each output channel, times inputs that are rounded to 8 bits token by token.

    Sums are of integers and exact, so a token's result does not depend on the tokens beside it. Measured with 2 threads
    on a processor with AVX-512 (896 x 4864): 0.17 ms for one row, 0.2 for 8, 0.45 for 32, where bfloat16 takes 0.34,
    0.35 and 0.8. Where the processor has tiles (AMX) these multiply more than a few rows; not measured yet.

    Source of the scheme: Dettmers et al., 2022, arXiv:2208.07339, without its outliers.
    """

    def __init__(self, weights: Sequence[Tensor], bias: Tensor | None, shelf: Shelf) -> None:
        """`weights`: [out, in] on the CPU; one below the other they are the matrix."""
        super().__init__(weights)
        self._padded = -(-self.in_features // _PANEL) * _PANEL
        native = kernels()
        self._native = native is not None
        if native is not None:
            self._packed = shelf.room((_panels(self.out_features), self._padded // 4, _PANEL, 4), torch.uint8)
            self._scales = native.pack_int8(weights, self._packed)
        else:
            self._packed, self._scales = _in_8_bits(torch.cat([*weights]))
        self._bias = None if bias is None else bias.to(torch.float32, copy=True)

    @property
    def addresses(self) -> tuple[int, int, int]:
        """Where the matrix, scales and bias lie; 0 is nowhere."""
        return self._packed.data_ptr(), self._scales.data_ptr(), _address(self._bias)

    @property
    def tiled(self) -> bool:
        return self._native and _native().int8_tiles is not Tiles.NONE

    def forward(self, input: Tensor) -> Tensor:
        native = kernels()
        if self._native and native is not None:
            return native.linear_int8(input, self._packed, self._padded, self._scales, self._bias, self.out_features)
        return self.reference(input)

    def reference(self, input: Tensor) -> Tensor:
        """The same, computed by torch."""
        rounded, scales = _in_8_bits(input)
        # At least 32 rows, because torch refuses fewer on some processors.
        padded = F.pad(rounded, (0, 0, 0, max(0, 32 - len(rounded))))
        sums = torch._int_mm(padded, self.weight_int8().t())[: len(rounded)]  # pyright: ignore[reportPrivateImportUsage]
        out = sums.float() * (scales[:, None] * self._scales)
        return (out if self._bias is None else out + self._bias).to(input.dtype)

    def weight_int8(self) -> Tensor:
        """The rounded matrix: int8 [out, in]."""
        if not self._native:
            return self._packed
        whole = self._packed.permute(0, 2, 1, 3).flatten(0, 1).flatten(1)[: self.out_features, : self.in_features]
        return (whole.to(torch.int16) - (_LARGEST + 1)).to(torch.int8)

    def rows(self, indices: Tensor) -> Tensor:
        """Rows of the matrix: int64 [n] -> float32 [n, in]."""
        if self._native:
            rounded = self._packed[indices // _PANEL, :, indices % _PANEL].flatten(1)[:, : self.in_features].float()
            rounded -= _LARGEST + 1
        else:
            rounded = self._packed[indices].float()
        return rounded * self._scales[indices, None]


class OneDnnInt8Linear(_Packed):
    """The numbers of `Int8Linear`, multiplied by oneDNN: where there are tiles (AMX), but our kernels do not run."""

    def __init__(self, weights: Sequence[Tensor], bias: Tensor | None) -> None:
        """`weights`: [out, in] on the CPU; one below the other they are the matrix."""
        super().__init__(weights)
        rounded, self._scales = _in_8_bits(torch.cat([*weights]))
        self._packed = torch.ops.onednn.qlinear_prepack(rounded, None)
        self._zeros = torch.zeros(self.out_features, dtype=torch.int32)
        self._bias = None if bias is None else bias.to(torch.float32, copy=True)

    def forward(self, input: Tensor) -> Tensor:
        rounded, scales = _in_8_bits(input)
        sums = torch.ops.onednn.qlinear_pointwise(
            rounded, 1.0, 0, self._packed, self._scales, self._zeros, None, 1.0, 0, torch.float32, "none", [], ""
        )
        sums *= scales[:, None]
        return (sums if self._bias is None else sums.add_(self._bias)).to(input.dtype)


def _in_8_bits(x: Tensor) -> tuple[Tensor, Tensor]:
    """Every row of x [rows, in] in int8, and what to multiply it with: float32 [rows]."""
    wide = x.float()
    largest = wide.abs().amax(dim=-1, keepdim=True)
    # A division of tensors: torch multiplies a number over a tensor by the reciprocal, which rounds otherwise.
    factor = torch.where(largest > 0, torch.tensor(float(_LARGEST)) / largest, 0.0)
    return (wide * factor).round_().to(torch.int8), largest[:, 0] / _LARGEST


class Part(_Packed):
    """A matrix that lies in one with those of its neighbours, which read the same input."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: ARG002 - as a linear layer has it
        raise TypeError("only all parts together can be multiplied")


class PackedEmbedding(nn.Module):
    """An embedding whose rows are read from the output head's matrix, so that it is in memory once."""

    def __init__(self, head: Bfloat16Linear | Int8Linear, dtype: torch.dtype) -> None:
        super().__init__()
        self._head = [head]  # in a list, so that it is not a second module of the same parameters
        self._dtype = dtype

    def forward(self, token_ids: Tensor) -> Tensor:
        return self._head[0].rows(token_ids).to(self._dtype)


class Make(Protocol):
    """Packs matrices [out, in] into one, and maybe a bias [out]."""

    def __call__(self, weights: Sequence[Tensor], bias: Tensor | None) -> nn.Linear: ...


def rounded(rows: int) -> int:
    """The next larger number of rows for which kernels are made.

    oneDNN makes one for each number of rows and matrix: a millisecond and some memory each, so they have to be few.
    """
    step = 1 if rows <= 4 else 4 if rows <= 32 else 16 if rows <= 128 else 32
    return -(-rows // step) * step


def pack(decoder: Decoder, make: Make) -> None:
    """Lay the matrices of `decoder` out anew, those that read the same input as one, and the output head's too."""
    for layer in decoder.model.layers:
        attention, mlp = layer.self_attn, layer.mlp
        assert isinstance(attention, SelfAttention) and isinstance(mlp, MLP), "a layer is made of these"  # noqa: S101, PT018
        _pack_together(attention, ("q_proj", "k_proj", "v_proj"), make)
        _pack_together(mlp, ("gate_proj", "up_proj"), make)
        attention.o_proj = _packed(attention.o_proj, make)
        mlp.down_proj = _packed(mlp.down_proj, make)
    if decoder.lm_head is not None:
        decoder.lm_head = _packed(decoder.lm_head, make)
        return
    embedding = decoder.model.embed_tokens
    head = make([embedding.weight], None)
    decoder.head = head
    if isinstance(head, Bfloat16Linear | Int8Linear):
        decoder.model.embed_tokens = PackedEmbedding(head, embedding.weight.dtype)  # pyright: ignore[reportAttributeAccessIssue]


def _packed(linear: nn.Linear, make: Make) -> nn.Linear:
    return make([linear.weight], linear.bias)


def _pack_together(module: SelfAttention | MLP, names: Sequence[str], make: Make) -> None:
    parts = [getattr(module, name) for name in names]
    biases = [part.bias for part in parts]
    bias = None if biases[0] is None else torch.cat(biases)
    module.together = make([part.weight for part in parts], bias)
    for name, part in zip(names, parts, strict=True):
        setattr(module, name, Part([part.weight]))


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _panels(channels: int) -> int:
    return -(-channels // _PANEL)


def _native() -> Kernels:
    found = kernels()
    assert found is not None, "packed where there are kernels"  # noqa: S101
    return found
