"""The same numbers for the same request, whatever else is in the batch.

Kernels choose how to add up by the size of what they are given, so a token's scores would depend on how many others
are computed with it. Here every token goes through pieces of one fixed size, whose rows do not touch one another: the
same piece for a prompt that is read at once, in parts, or again, and for an answer that grows token by token.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from parkway.engine.attention import PagedAttention, Span
from parkway.engine.cache import BLOCK_TOKENS, KVCache, blocks_for
from parkway.engine.device import moved
from parkway.engine.model import Decoder

TILE = 16  # rows that a matrix is multiplied with at once


def in_tiles(multiply: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """What `multiply` makes of `x`, `TILE` rows at a time: [n, in] -> [n, out]."""
    count = x.shape[0]
    padded = F.pad(x, (0, 0, 0, -count % TILE))
    return torch.cat([multiply(tile) for tile in padded.split(TILE)])[:count]


def tiled_linear(x: Tensor, weight: Tensor) -> Tensor:
    """`F.linear` in tiles."""
    return in_tiles(lambda tile: F.linear(tile, weight), x)


class _Tiled(nn.Linear):
    """A linear layer that is given tiles."""

    def __init__(self, inner: nn.Linear) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = inner.in_features, inner.out_features
        self.inner = inner

    def forward(self, input: Tensor) -> Tensor:
        return in_tiles(self.inner, input)


def make_deterministic(decoder: Decoder) -> None:
    """Let every matrix of `decoder` be multiplied in tiles."""
    for layer in decoder.model.layers:
        for block in layer.children():
            for name, child in list(block.named_children()):
                if isinstance(child, nn.Linear):
                    setattr(block, name, _Tiled(child))
    decoder.head = partial(in_tiles, decoder.head)


class TiledAttention(PagedAttention):
    """Attention in pieces of one block of queries against all blocks up to it.

    A token has its place in the piece by its position, alone or beside others, so a piece has the same shape however
    many of its tokens are new.
    """

    def __init__(self, cache: KVCache, spans: Sequence[Span], dtype: torch.dtype) -> None:
        super().__init__(cache, spans, dtype)
        self._pieces: list[tuple[Tensor, Tensor, Tensor, int]] = []  # tokens, their rows, the table, its blocks
        first = 0
        for span in spans:
            for block in range(span.start // BLOCK_TOKENS, blocks_for(span.end)):
                start = max(span.start, block * BLOCK_TOKENS)
                end = min(span.end, (block + 1) * BLOCK_TOKENS)
                tokens = moved(torch.arange(start, end) - span.start + first, cache.device)
                rows = moved(torch.arange(start, end) - block * BLOCK_TOKENS, cache.device)
                table = moved(torch.tensor([span.table[: block + 1]]), cache.device)
                self._pieces.append((tokens, rows, table, block))
            first += span.count
        self._masks = {block: moved(_mask(block, dtype), cache.device) for *_, block in self._pieces}

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        self._cache.write(layer, self._places, k[: len(self._places)], v[: len(self._places)])
        out = torch.zeros_like(q)
        for tokens, rows, table, block in self._pieces:
            keys, values = (part.transpose(1, 2) for part in self._cache.gather(layer, table))
            queries = q.new_zeros(BLOCK_TOKENS, *q.shape[1:])
            queries[rows] = q[tokens]
            mixed = F.scaled_dot_product_attention(
                queries.transpose(0, 1)[None], keys, values, attn_mask=self._masks[block], enable_gqa=True
            )
            out[tokens] = mixed[0].transpose(0, 1)[rows]
        return out


def _mask(block: int, dtype: torch.dtype) -> Tensor:
    """What is added to the scores of a piece: nothing up to a query's own place, -inf behind it."""
    places = torch.arange((block + 1) * BLOCK_TOKENS)
    hidden = places > torch.arange(BLOCK_TOKENS)[:, None] + block * BLOCK_TOKENS
    return torch.zeros(hidden.shape, dtype=dtype).masked_fill(hidden, float("-inf"))
