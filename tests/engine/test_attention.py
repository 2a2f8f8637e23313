"""Attention over the cache against attention over each sequence by itself."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from parkway.core.errors import ModelFilesError
from parkway.engine.attention import CachedAttention, Span
from parkway.engine.cache import KVCache
from parkway.engine.shape import ModelShape
from tests.engine.tiny import SIZES

SHAPE = ModelShape.from_config({**SIZES, "model_type": "llama"})


def cache_of(rows: int, row_tokens: int = 1100) -> KVCache:
    return KVCache(SHAPE, torch.float32, row_tokens=row_tokens, rows=rows, budget_bytes=1 << 30)


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


# (row, tokens behind it, tokens in this step)
STEPS = {
    "one decodes": [(0, 9, 1)],
    "neighbours decode": [(0, 9, 1), (1, 30, 1), (2, 4, 1), (3, 4, 1)],
    "equal lengths need no mask": [(0, 9, 1), (1, 9, 1)],
    "gaps between rows": [(0, 9, 1), (2, 30, 1), (3, 5, 1), (7, 100, 1)],
    "lengths of other magnitude": [(0, 9, 1), (1, 1000, 1), (2, 600, 1), (3, 20, 1)],
    "prompts from the start": [(0, 0, 17), (1, 0, 2)],
    "a prompt goes on": [(3, 40, 17)],
    "everything at once": [(5, 40, 17), (0, 9, 1), (2, 0, 8), (1, 900, 1), (4, 0, 1), (6, 12, 1)],
}


@pytest.mark.parametrize("name", STEPS)
def test_each_sequence_gets_what_it_would_get_by_itself(name: str) -> None:
    generator = torch.Generator().manual_seed(3)
    cache = cache_of(8)
    past = {}
    for row, start, _ in STEPS[name]:
        past[row] = draw(generator, start)
        if start:
            before = CachedAttention(cache, [Span(row, 0, start)], torch.float32)
            for layer in range(SHAPE.layers):
                before(layer, *past[row])
    spans = sorted((Span(*step) for step in STEPS[name]), key=CachedAttention.order)
    attention = CachedAttention(cache, spans, torch.float32)
    now = [draw(generator, span.count) for span in spans]
    q, k, v = (torch.cat(parts) for parts in zip(*now, strict=True))
    expected = torch.cat(
        [
            by_itself(own_q, torch.cat((past[span.row][1], own_k)), torch.cat((past[span.row][2], own_v)), span.start)
            for span, (own_q, own_k, own_v) in zip(spans, now, strict=True)
        ]
    )
    for layer in range(SHAPE.layers):
        torch.testing.assert_close(attention(layer, q, k, v), expected, rtol=1e-4, atol=1e-5)
    assert attention.positions.tolist() == [place for span in spans for place in range(span.start, span.end)]


def test_places_that_nobody_wrote_are_never_seen_even_by_a_neighbours_mask() -> None:
    """A short row beside a long one is read to the long one's end; what stands there must not matter."""
    generator = torch.Generator().manual_seed(3)
    cache = cache_of(2)
    long, short = draw(generator, 50), draw(generator, 5)
    CachedAttention(cache, [Span(0, 0, 49), Span(1, 0, 50)], torch.float32)(
        0, *(part * float("nan") for part in draw(generator, 99))
    )
    cache.wipe(0)
    cache.wipe(1)
    CachedAttention(cache, [Span(0, 0, 49)], torch.float32)(0, *(part[:49] for part in long))
    CachedAttention(cache, [Span(1, 0, 4)], torch.float32)(0, *(part[:4] for part in short))
    now = [torch.stack((a[-1], b[-1])) for a, b in zip(long, short, strict=True)]
    found = CachedAttention(cache, [Span(0, 49, 1), Span(1, 4, 1)], torch.float32)(0, *now)
    torch.testing.assert_close(found[0], by_itself(*long, 0)[-1])
    torch.testing.assert_close(found[1], by_itself(*short, 0)[-1])


def test_a_new_cache_holds_zeros() -> None:
    cache = cache_of(2)
    for layer in range(SHAPE.layers):
        assert not any(part.any() for part in cache.read(layer, 0, 2, 1100))


def test_rows_are_lent_lowest_first_and_once() -> None:
    cache = cache_of(3)
    assert [cache.take() for _ in range(4)] == [0, 1, 2, None]
    cache.give_back(2)
    cache.give_back(0)
    assert cache.free_rows == 2
    assert cache.take() == 0
    with pytest.raises(ValueError, match="free already"):
        cache.give_back(2)


def test_the_budget_bounds_the_rows() -> None:
    token_bytes = 2 * SHAPE.layers * SHAPE.kv_heads * SHAPE.head_dim * 4
    cache = KVCache(SHAPE, torch.float32, row_tokens=100, rows=32, budget_bytes=token_bytes * 100 * 5 + 1)
    assert cache.rows == 5
    with pytest.raises(ModelFilesError, match=f"{token_bytes * 100} bytes.*cache_bytes is 1000"):
        KVCache(SHAPE, torch.float32, row_tokens=100, rows=32, budget_bytes=1000)
