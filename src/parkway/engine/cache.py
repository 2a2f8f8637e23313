"""Keys and values of the tokens that sequences have behind them, in blocks."""

import math
import mmap
from collections.abc import Iterable

import torch
from torch import Tensor

from parkway.core.errors import ModelFilesError
from parkway.engine.device import CPU
from parkway.engine.shape import ModelShape

BLOCK_TOKENS = 32
"""Larger ones share less, smaller ones cost more to look up; a text is shared up to its last whole block."""


def blocks_for(tokens: int) -> int:
    """How many blocks so many tokens need."""
    return -(-tokens // BLOCK_TOKENS)


class KVCache:
    """Memory for `blocks` blocks of `BLOCK_TOKENS` tokens; a sequence's tokens lie in the blocks of its table.

    Main memory that no token was written to is never touched, so the operating system does not back it. It reads as
    zeros, and must: attention gives hidden places the weight 0, but 0 times NaN is NaN.

    Where in a block its numbers lie is up to the attention that uses it. `write`, `read` and `gather` put token behind
    token; our own kernels turn a block's keys and values (`engine/native/attention.c`), and work on `layer`.

    One block more belongs to nobody: steps that are filled up with idle tokens write these there.

    Args:
        shape: sizes of the model.
        dtype: type of keys and values.
        blocks: how many.
        device: where they lie.

    Raises:
        ModelFilesError: there is not so much memory.
    """

    def __init__(self, shape: ModelShape, dtype: torch.dtype, *, blocks: int, device: torch.device = CPU) -> None:
        self.shape = shape
        self.blocks = blocks
        self.device = device
        self.spare = blocks  # the block that belongs to nobody
        size = ((blocks + 1) * BLOCK_TOKENS, shape.kv_heads, shape.head_dim)
        self._keys = [_zeros(size, dtype, device) for _ in range(shape.layers)]
        self._values = [_zeros(size, dtype, device) for _ in range(shape.layers)]

    @staticmethod
    def block_bytes(shape: ModelShape, dtype: torch.dtype) -> int:
        """What one block takes, over all layers."""
        return 2 * shape.layers * shape.kv_heads * shape.head_dim * dtype.itemsize * BLOCK_TOKENS

    def wipe(self, blocks: Iterable[int]) -> None:
        """Overwrite what blocks hold with zeros, because it may hold NaN."""
        for block in blocks:
            for layer in (*self._keys, *self._values):
                layer[block * BLOCK_TOKENS : (block + 1) * BLOCK_TOKENS].zero_()

    def write(self, layer: int, places: Tensor, keys: Tensor, values: Tensor) -> None:
        """Store the keys and values [tokens, kv_heads, head_dim] of one layer at `places` [tokens], int64."""
        self._keys[layer].index_copy_(0, places, keys)
        self._values[layer].index_copy_(0, places, values)

    def layer(self, layer: int) -> tuple[Tensor, Tensor]:
        """All keys and values of a layer: two [places, kv_heads, head_dim]."""
        return self._keys[layer], self._values[layer]

    def read(self, layer: int, first: int, last: int) -> tuple[Tensor, Tensor]:
        """Views of the blocks `first` to `last` - 1: two [tokens, kv_heads, head_dim]."""
        places = slice(first * BLOCK_TOKENS, last * BLOCK_TOKENS)
        return self._keys[layer][places], self._values[layer][places]

    def gather(self, layer: int, tables: Tensor) -> tuple[Tensor, Tensor]:
        """Copies of the blocks of several tables: int64 [n, blocks] -> two [n, tokens, kv_heads, head_dim]."""
        return _gather(self._keys[layer], tables), _gather(self._values[layer], tables)


def _gather(stored: Tensor, tables: Tensor) -> Tensor:
    blocks = stored.unflatten(0, (-1, BLOCK_TOKENS)).index_select(0, tables.flatten())
    return blocks.view(tables.shape[0], -1, *stored.shape[1:])


def _zeros(size: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Zeros; on the CPU they take no memory until they are written to, where `torch.zeros` would write them all."""
    try:
        if device.type != "cpu":
            return torch.zeros(size, dtype=dtype, device=device)
        pages = mmap.mmap(-1, math.prod(size) * dtype.itemsize)
    except (OSError, torch.OutOfMemoryError) as error:
        raise ModelFilesError(f"no memory for the cache: {error}; lower cache_bytes") from error
    return torch.frombuffer(pages, dtype=dtype).view(size)
