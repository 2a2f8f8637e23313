"""Attention over the cache, for a step in which some sequences decode and some read their prompt."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from parkway.engine.cache import BLOCK_TOKENS, KVCache, blocks_for
from parkway.engine.device import moved
from parkway.engine.native import Plan, kernels
from parkway.engine.shape import ModelShape

_LANES = 32  # dimensions of a head that the kernel takes at once


@dataclass(frozen=True, slots=True)
class Span:
    """New tokens of one sequence: `count` of them from position `start`; `table` names its blocks in order."""

    table: Sequence[int]
    start: int
    count: int

    @property
    def end(self) -> int:
        return self.start + self.count


@dataclass(frozen=True, slots=True)
class _Block:
    """Spans that one call of the attention kernel serves."""

    tokens: slice  # of the step's tokens
    tables: Tensor | None  # int64 [spans, blocks]; None where the blocks of the only span lie in a row
    first: int  # then: the first of them
    length: int  # tokens of each span that are read
    prompt: bool  # many new tokens of one sequence, against one new token in each of many
    mask: Tensor | None  # added to the scores; None where nothing has to be hidden


class PagedAttention:
    """Writes a step's keys and values to the cache and attends over it.

    The spans of a step must come as `order` sorts them. Sequences that decode one token and have lengths of one
    magnitude are served by one call, so that a short one is not padded to the length of a long one. Each prompt is a
    call of its own.

    Fields:
        recordable: its kernels can be recorded as a CUDA graph.
    """

    recordable = False

    def __init__(self, cache: KVCache, spans: Sequence[Span], dtype: torch.dtype) -> None:
        self._cache = cache
        self.spans = spans
        self.positions = moved(torch.cat([torch.arange(span.start, span.end) for span in spans]), cache.device)
        self._places = moved(torch.cat([_places(span) for span in spans]), cache.device)
        self._prepare(dtype)

    def _prepare(self, dtype: torch.dtype) -> None:
        self._blocks = [*_blocks(self.spans, dtype, self._cache.device)]

    @staticmethod
    def order(span: Span) -> tuple[bool, int]:
        """Sort key: sequences that decode come first, alike lengths together."""
        return (True, 0) if span.count > 1 else (False, _magnitude(span.end))

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        # There may be idle tokens behind those of the spans.
        self._cache.write(layer, self._places, k[: len(self._places)], v[: len(self._places)])
        out = torch.zeros_like(q)
        for block in self._blocks:
            keys, values = self._read(layer, block)
            attend = _prompt if block.prompt else _decode
            out[block.tokens] = attend(q[block.tokens], keys.transpose(1, 2), values.transpose(1, 2), block)
        return out

    def _read(self, layer: int, block: _Block) -> tuple[Tensor, Tensor]:
        """Keys and values [spans, length, kv_heads, head_dim], copied only where they do not lie in a row."""
        if block.tables is not None:
            keys, values = self._cache.gather(layer, block.tables)
        else:
            last = block.first + blocks_for(block.length)
            keys, values = (part[None] for part in self._cache.read(layer, block.first, last))
        return keys[:, : block.length], values[:, : block.length]


class NativeAttention(PagedAttention):
    """Attention that reads the cache's blocks where they lie. A query's result does not depend on the others."""

    @staticmethod
    def serves(shape: ModelShape, dtype: torch.dtype) -> bool:
        """Whether it can be used for such a model on this machine."""
        return kernels() is not None and dtype == torch.bfloat16 and shape.head_dim % _LANES == 0

    def _prepare(self, dtype: torch.dtype) -> None:  # noqa: ARG002 - it is always bfloat16
        self._plan = Plan.of((span.table, span.start, span.count) for span in self.spans)

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        native = kernels()
        assert native is not None, "chosen where there are kernels"  # noqa: S101
        keys, values = self._cache.layer(layer)
        native.write(k, v, self._places, keys, values)
        return native.attend(q, keys, values, self._plan)


def _decode(q: Tensor, keys: Tensor, values: Tensor, block: _Block) -> Tensor:
    """One query a sequence: q [n, heads, head_dim], keys and values [n, kv_heads, length, head_dim]."""
    # The heads that share a key stand in the place of queries, so that each key is read once for all of them.
    grouped = q.unflatten(1, (keys.shape[1], -1))
    return F.scaled_dot_product_attention(grouped, keys, values, attn_mask=block.mask).flatten(1, 2)


def _prompt(q: Tensor, keys: Tensor, values: Tensor, block: _Block) -> Tensor:
    """Many queries of one sequence: q [tokens, heads, head_dim], keys and values [1, kv_heads, length, head_dim]."""
    mixed = F.scaled_dot_product_attention(
        q.transpose(0, 1)[None],
        keys,
        values,
        attn_mask=block.mask,
        enable_gqa=True,
    )
    return mixed[0].transpose(0, 1)


def _places(span: Span) -> Tensor:
    """Where the span's tokens go: int64 [count], indices into the cache's tokens."""
    positions = torch.arange(span.start, span.end)
    first = span.start // BLOCK_TOKENS
    table = torch.tensor(span.table[first : blocks_for(span.end)])
    return table[positions // BLOCK_TOKENS - first] * BLOCK_TOKENS + positions % BLOCK_TOKENS


def _magnitude(length: int) -> int:
    """Lengths of one magnitude differ by less than a factor of four; all up to 512 are alike."""
    return max(length - 1, 255).bit_length() // 2


def _blocks(spans: Sequence[Span], dtype: torch.dtype, device: torch.device) -> Sequence[_Block]:
    blocks: list[_Block] = []
    token, index = 0, 0
    while index < len(spans):
        run = _run(spans, index)
        count = sum(span.count for span in run)
        blocks.append(_block(run, slice(token, token + count), dtype, device))
        token += count
        index += len(run)
    return blocks


def _run(spans: Sequence[Span], index: int) -> Sequence[Span]:
    """The spans from `index` on that one call can serve."""
    end = index + 1
    if spans[index].count == 1:
        while end < len(spans) and spans[end].count == 1 and _magnitude(spans[end].end) == _magnitude(spans[index].end):
            end += 1
    return spans[index:end]


def _block(run: Sequence[Span], tokens: slice, dtype: torch.dtype, device: torch.device) -> _Block:
    first = run[0]
    # Whole blocks, because the kernels below make code for each length; the rest is hidden.
    length = blocks_for(max(span.end for span in run)) * BLOCK_TOKENS
    if first.count > 1:
        allowed = torch.arange(length) <= torch.arange(first.start, first.end)[:, None]
    else:
        allowed = torch.arange(length) < torch.tensor([span.end for span in run])[:, None, None, None]
    mask = None if bool(allowed.all()) else moved(_additive(allowed, dtype), device)
    return _Block(
        tokens=tokens,
        tables=None if len(run) == 1 and _in_a_row(first.table) else moved(_tables(run, blocks_for(length)), device),
        first=first.table[0],
        length=length,
        prompt=first.count > 1,
        mask=mask,
    )


def _in_a_row(table: Sequence[int]) -> bool:
    return list(table) == list(range(table[0], table[0] + len(table)))


def _tables(run: Sequence[Span], blocks: int) -> Tensor:
    """The tables side by side; a shorter one is filled up with its first block, which the mask hides."""
    rows = [[*span.table[:blocks], *[span.table[0]] * (blocks - len(span.table))] for span in run]
    return torch.tensor(rows)


def _additive(allowed: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.zeros(allowed.shape, dtype=dtype).masked_fill(~allowed, float("-inf"))
