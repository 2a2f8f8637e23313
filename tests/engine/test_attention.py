"""Attention over the cache against attention over each sequence by itself."""

import os
import random

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from parkway.engine.attention import PagedAttention, Span
from parkway.engine.cache import BLOCK_TOKENS, KVCache
from parkway.engine.shape import ModelShape
from tests.engine.tiny import SIZES
from tests.running import resident_mib

SHAPE = ModelShape.from_config({**SIZES, "model_type": "llama"})


TABLE_BLOCKS = 35  # 1,120 tokens a sequence


def cache_of(sequences: int) -> KVCache:
    return KVCache(SHAPE, torch.float32, blocks=sequences * TABLE_BLOCKS)


def scattered(sequences: int) -> list[list[int]]:
    """Tables whose blocks lie all over the cache."""
    order = list(range(sequences * TABLE_BLOCKS))
    random.Random(5).shuffle(order)
    return [order[each * TABLE_BLOCKS :][:TABLE_BLOCKS] for each in range(sequences)]


def in_a_row(sequences: int) -> list[list[int]]:
    """Tables whose blocks follow one another."""
    return [list(range(each * TABLE_BLOCKS, (each + 1) * TABLE_BLOCKS)) for each in range(sequences)]


def cut(table: list[int], tokens: int) -> list[int]:
    """As many blocks of a table as so many tokens need: a sequence holds no more."""
    return table[: -(-tokens // BLOCK_TOKENS)]


def draw(generator: torch.Generator, tokens: int) -> tuple[Tensor, Tensor, Tensor]:
    def normal(heads: int) -> Tensor:
        return torch.randn(tokens, heads, SHAPE.head_dim, generator=generator)

    return normal(SHAPE.heads), normal(SHAPE.kv_heads), normal(SHAPE.kv_heads)


def by_itself(q: Tensor, k: Tensor, v: Tensor, start: int) -> Tensor:
    """The last tokens of one sequence attend to all before them: q [count], k and v [start + count]."""
    allowed = torch.arange(len(k)) <= torch.arange(start, len(k))[:, None]
    mixed = F.scaled_dot_product_attention(
        q.transpose(0, 1), k.transpose(0, 1), v.transpose(0, 1), attn_mask=allowed, enable_gqa=True
    )
    return mixed.transpose(0, 1)


# (sequence, tokens behind it, tokens in this step)
STEPS = {
    "one decodes": [(0, 9, 1)],
    "neighbours decode": [(0, 9, 1), (1, 30, 1), (2, 4, 1), (3, 4, 1)],
    "equal lengths need no mask": [(0, 9, 1), (1, 9, 1)],
    "some of many": [(0, 9, 1), (2, 30, 1), (3, 5, 1), (7, 100, 1)],
    "lengths of other magnitude": [(0, 9, 1), (1, 1000, 1), (2, 600, 1), (3, 20, 1)],
    "prompts from the start": [(0, 0, 17), (1, 0, 2)],
    "a prompt goes on": [(3, 40, 17)],
    "everything at once": [(5, 40, 17), (0, 9, 1), (2, 0, 8), (1, 900, 1), (4, 0, 1), (6, 12, 1)],
}


@pytest.mark.parametrize("tables", [scattered(8), in_a_row(8)], ids=["scattered", "in a row"])
@pytest.mark.parametrize("name", STEPS)
def test_each_sequence_gets_what_it_would_get_by_itself(name: str, tables: list[list[int]]) -> None:
    generator = torch.Generator().manual_seed(3)
    cache = cache_of(8)
    past: dict[int, tuple[Tensor, Tensor, Tensor]] = {}
    for sequence, start, _ in STEPS[name]:
        past[sequence] = draw(generator, start)
        if start:
            before = PagedAttention(cache, [Span(cut(tables[sequence], start), 0, start)], torch.float32)
            for layer in range(SHAPE.layers):
                before(layer, *past[sequence])
    steps = [(each, Span(cut(tables[each], start + count), start, count)) for each, start, count in STEPS[name]]
    steps.sort(key=lambda step: PagedAttention.order(step[1]))
    attention = PagedAttention(cache, [span for _, span in steps], torch.float32)
    now = [draw(generator, span.count) for _, span in steps]
    q, k, v = (torch.cat(parts) for parts in zip(*now, strict=True))
    expected = torch.cat(
        [
            by_itself(own_q, torch.cat((past[each][1], own_k)), torch.cat((past[each][2], own_v)), span.start)
            for (each, span), (own_q, own_k, own_v) in zip(steps, now, strict=True)
        ]
    )
    for layer in range(SHAPE.layers):
        torch.testing.assert_close(attention(layer, q, k, v), expected, rtol=1e-4, atol=1e-5)
    assert attention.positions.tolist() == [place for _, span in steps for place in range(span.start, span.end)]


def test_sequences_may_share_blocks() -> None:
    """Two texts with one beginning: its keys and values are stored once and read by both."""
    generator = torch.Generator().manual_seed(3)
    cache = cache_of(1)
    shared = draw(generator, BLOCK_TOKENS)
    PagedAttention(cache, [Span([4], 0, BLOCK_TOKENS)], torch.float32)(0, *shared)
    now = draw(generator, 2)
    spans = [Span([4, 9], BLOCK_TOKENS, 1), Span([4, 2], BLOCK_TOKENS, 1)]
    found = PagedAttention(cache, spans, torch.float32)(0, *now)
    for row in range(2):
        own = [torch.cat((old, new[row : row + 1])) for old, new in zip(shared, now, strict=True)]
        torch.testing.assert_close(found[row], by_itself(*own, 0)[-1])


def test_places_that_nobody_wrote_are_never_seen_even_by_a_neighbours_mask() -> None:
    """A short text beside a long one is read to the long one's end; what stands there must not matter."""
    generator = torch.Generator().manual_seed(3)
    cache = cache_of(1)
    long, short = draw(generator, 50), draw(generator, 5)
    bad = [Span([0, 1], 0, 64), Span([2], 0, 32)]
    PagedAttention(cache, bad, torch.float32)(0, *(part * float("nan") for part in draw(generator, 96)))
    cache.wipe([0, 1, 2])
    PagedAttention(cache, [Span([0, 1], 0, 49)], torch.float32)(0, *(part[:49] for part in long))
    PagedAttention(cache, [Span([2], 0, 4)], torch.float32)(0, *(part[:4] for part in short))
    now = [torch.stack((a[-1], b[-1])) for a, b in zip(long, short, strict=True)]
    found = PagedAttention(cache, [Span([0, 1], 49, 1), Span([2], 4, 1)], torch.float32)(0, *now)
    torch.testing.assert_close(found[0], by_itself(*long, 0)[-1])
    torch.testing.assert_close(found[1], by_itself(*short, 0)[-1])


def test_a_new_cache_holds_zeros_and_takes_no_memory() -> None:
    before = resident_mib(os.getpid())
    cache = KVCache(SHAPE, torch.float32, blocks=(256 << 20) // KVCache.block_bytes(SHAPE, torch.float32))
    assert resident_mib(os.getpid()) - before < 32
    for layer in range(SHAPE.layers):
        assert not any(part.any() for part in cache.read(layer, 0, 3))
