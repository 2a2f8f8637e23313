"""Keys and values of the tokens that sequences have behind them, one row of memory a sequence."""

import heapq
import math
import mmap

import torch
from torch import Tensor

from parkway.core.errors import ModelFilesError
from parkway.engine.shape import ModelShape


class KVCache:
    """A table of rows; a sequence that runs holds one row, long enough for the whole context.

    Memory that no token was written to is never touched, so the operating system does not back it. It reads as zeros,
    and must: attention gives hidden places the weight 0, but 0 times NaN is NaN.

    Rows are handed out lowest first: sequences that run together tend to be neighbours, and attention reads neighbours
    as one block without copying (`engine/attention.py`).

    Args:
        shape: sizes of the model.
        dtype: type of keys and values.
        row_tokens: length of a row, at most the model's context.
        rows: the most sequences that run at once.
        budget_bytes: the cache never holds more; rows that do not fit are left out.

    Raises:
        ModelFilesError: not even one row fits the budget.
    """

    def __init__(self, shape: ModelShape, dtype: torch.dtype, *, row_tokens: int, rows: int, budget_bytes: int) -> None:
        token_bytes = 2 * shape.layers * shape.kv_heads * shape.head_dim * dtype.itemsize
        self.row_tokens = row_tokens
        self.rows = min(rows, budget_bytes // (token_bytes * row_tokens))
        if self.rows < 1:
            raise ModelFilesError(
                f"one sequence of {row_tokens} tokens needs {token_bytes * row_tokens} bytes of cache, but "
                f"cache_bytes is {budget_bytes}; raise it, or lower max_context_tokens"
            )
        size = (self.rows, row_tokens, shape.kv_heads, shape.head_dim)
        self._keys = [_zeros(size, dtype) for _ in range(shape.layers)]
        self._values = [_zeros(size, dtype) for _ in range(shape.layers)]
        self._free = list(range(self.rows))

    @property
    def free_rows(self) -> int:
        return len(self._free)

    def take(self) -> int | None:
        """The lowest free row, or None if all are held."""
        return heapq.heappop(self._free) if self._free else None

    def give_back(self, row: int) -> None:
        """Free a row. What it held may be overwritten from now on."""
        if row in self._free:
            raise ValueError(f"row {row} is free already")
        heapq.heappush(self._free, row)

    def wipe(self, row: int) -> None:
        """Overwrite what a row holds with zeros, because it may hold NaN."""
        for layer in (*self._keys, *self._values):
            layer[row].zero_()

    def places(self, rows: Tensor, positions: Tensor) -> Tensor:
        """Where tokens go, for `write`: int64 [tokens] and int64 [tokens] -> int64 [tokens]."""
        return rows * self.row_tokens + positions

    def write(self, layer: int, places: Tensor, keys: Tensor, values: Tensor) -> None:
        """Store the keys and values [tokens, kv_heads, head_dim] of one layer at `places` [tokens]."""
        self._keys[layer].flatten(0, 1).index_copy_(0, places, keys)
        self._values[layer].flatten(0, 1).index_copy_(0, places, values)

    def read(self, layer: int, first: int, last: int, length: int) -> tuple[Tensor, Tensor]:
        """Views of the rows `first` to `last` - 1, up to `length`: two [rows, length, kv_heads, head_dim]."""
        return self._keys[layer][first:last, :length], self._values[layer][first:last, :length]


def _zeros(size: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Zeros that take no memory until they are written to; `torch.zeros` would write them all."""
    try:
        pages = mmap.mmap(-1, math.prod(size) * dtype.itemsize)
    except OSError as error:
        raise ModelFilesError(f"no memory for the cache: {error}; lower cache_bytes") from error
    return torch.frombuffer(pages, dtype=dtype).view(size)
