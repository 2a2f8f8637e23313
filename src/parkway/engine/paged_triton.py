# pyright: reportGeneralTypeIssues=false, reportArgumentType=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportOperatorIssue=false, reportAttributeAccessIssue=false, reportOptionalMemberAccess=false
# Triton compiles the kernels from their text; to pyright they look like Python, and wrong.
"""Attention over the cache for GPUs: a kernel in Triton that reads blocks where they lie.

One program serves some new tokens of one sequence and one key-value head, with all heads that share it, so that each
key is read once for all of them. Softmax runs along with the keys in float32. Where there are few programs for the
GPU, each goes through a part of the keys only, and a second kernel puts the parts together.

Source of the running softmax: Dao et al., 2022, arXiv:2205.14135; of the division of keys: the same, "Flash-Decoding",
2023; of the pages: Kwon et al., 2023, arXiv:2309.06180.

Triton compiles when a kernel is first used, for which it needs a C compiler. Where it is missing, torch's own attention
does the work.
"""

import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Self

import torch
import triton
import triton.language as tl
from torch import Tensor

from parkway.engine.attention import PagedAttention, Span
from parkway.engine.cache import BLOCK_TOKENS, KVCache, blocks_for
from parkway.engine.device import launching_on, upload
from parkway.engine.shape import ModelShape

log = logging.getLogger(__name__)

_LEAST_ROWS = 16  # the smallest matrix that tl.dot multiplies
_LARGEST_ROW_BYTES = 512  # of a head; a program's queries, keys and values have to fit into shared memory
_MOST_GROUP = 64  # heads that share a key-value head
_LEAST_PART = 256  # keys; smaller parts would cost more to put together than they gain
_MOST_PARTS = 32
_PROGRAMS_EACH = 2  # programs for each multiprocessor of the GPU, to have all of them busy


@triton.jit(do_not_specialize_on_alignment=["pieces", "tables"])
def _attend(
    q,  # [tokens, heads, DIM]
    keys,  # [places, KV_HEADS, DIM]
    values,
    out,  # as q
    mixtures,  # float32 [pieces, KV_HEADS, parts, ROWS, WIDTH]
    sums,  # float32 [pieces, KV_HEADS, parts, ROWS, 2]: the largest score, and the sum of weights
    pieces,  # int64 [pieces, 4]: as `Plan.pieces`
    tables,  # int64: numbers of blocks
    scale,  # of scores, times log2(e): weights are powers of 2
    KV_HEADS: tl.constexpr,
    GROUP: tl.constexpr,  # heads that share a key-value head
    DIM: tl.constexpr,  # of a head
    WIDTH: tl.constexpr,  # the same, rounded up to a power of 2
    ROWS: tl.constexpr,  # queries times GROUP, likewise
    KEYS: tl.constexpr,  # keys at once
    BLOCK: tl.constexpr,  # tokens of a block of the cache
    LEAST: tl.constexpr,  # the fewest keys of a part
    PARTED: tl.constexpr,  # the third dimension of the grid divides the keys
):
    piece = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    first = tl.load(pieces + piece * 4)
    count = tl.load(pieces + piece * 4 + 1).to(tl.int32)
    start = tl.load(pieces + piece * 4 + 2).to(tl.int32)
    table = tables + tl.load(pieces + piece * 4 + 3)
    end = start + count

    row = tl.arange(0, ROWS)
    query = row // GROUP
    dim = tl.arange(0, WIDTH)
    place = ((first + query) * KV_HEADS + head) * GROUP + row % GROUP
    own = place[:, None] * DIM + dim[None, :]
    mine = (query < count)[:, None] & (dim < DIM)[None, :]
    x = tl.load(q + own, mask=mine, other=0.0)

    low = 0
    high = end
    if PARTED:
        part = tl.program_id(2)
        each = tl.maximum(tl.cdiv(tl.cdiv(end, tl.num_programs(2)), KEYS) * KEYS, LEAST)
        low = part * each
        high = tl.minimum(end, low + each)

    best = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    mixture = tl.zeros([ROWS, WIDTH], tl.float32)
    for begin in range(low, high, KEYS):
        position = begin + tl.arange(0, KEYS)
        exists = position < high
        block = tl.load(table + position // BLOCK, mask=exists, other=0)
        at = ((block * BLOCK + position % BLOCK) * KV_HEADS + head) * DIM
        k = tl.load(keys + at[None, :] + dim[:, None], mask=exists[None, :] & (dim < DIM)[:, None], other=0.0)
        scores = tl.dot(x, k, input_precision="ieee") * scale
        seen = exists[None, :] & (position[None, :] <= start + query[:, None])
        scores = tl.where(seen, scores, float("-inf"))
        higher = tl.maximum(best, tl.max(scores, 1))
        # A query that sees none of these keys: without this, -inf less -inf would be no number.
        level = tl.where(higher == float("-inf"), 0.0, higher)
        weights = tl.exp2(scores - level[:, None])
        fade = tl.exp2(best - level)
        v = tl.load(values + at[:, None] + dim[None, :], mask=exists[:, None] & (dim < DIM)[None, :], other=0.0)
        total = total * fade + tl.sum(weights, 1)
        mixture = mixture * fade[:, None] + tl.dot(weights.to(v.dtype), v, input_precision="ieee")
        best = higher

    if PARTED:
        spot = ((piece * KV_HEADS + head) * tl.num_programs(2) + tl.program_id(2)) * ROWS + row
        tl.store(sums + spot * 2, best)
        tl.store(sums + spot * 2 + 1, total)
        tl.store(mixtures + spot[:, None] * WIDTH + dim[None, :], mixture)
    else:
        tl.store(out + own, (mixture / total[:, None]).to(out.dtype.element_ty), mask=mine)


@triton.jit(do_not_specialize=["parts"], do_not_specialize_on_alignment=["pieces"])
def _unite(
    mixtures,
    sums,
    out,
    pieces,
    parts,
    KV_HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    DIM: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
):
    """The results of parts of the keys, as `_attend` leaves them, put together."""
    piece = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    first = tl.load(pieces + piece * 4)
    count = tl.load(pieces + piece * 4 + 1).to(tl.int32)
    row = tl.arange(0, ROWS)
    dim = tl.arange(0, WIDTH)
    best = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    mixture = tl.zeros([ROWS, WIDTH], tl.float32)
    for part in range(0, parts):
        spot = ((piece * KV_HEADS + head) * parts + part) * ROWS + row
        found = tl.load(sums + spot * 2)
        higher = tl.maximum(best, found)
        level = tl.where(higher == float("-inf"), 0.0, higher)
        fade = tl.exp2(best - level)
        share = tl.exp2(found - level)
        total = total * fade + tl.load(sums + spot * 2 + 1) * share
        more = tl.load(mixtures + spot[:, None] * WIDTH + dim[None, :])
        mixture = mixture * fade[:, None] + more * share[:, None]
        best = higher
    query = row // GROUP
    place = ((first + query) * KV_HEADS + head) * GROUP + row % GROUP
    own = place[:, None] * DIM + dim[None, :]
    mine = (query < count)[:, None] & (dim < DIM)[None, :]
    tl.store(out + own, (mixture / total[:, None]).to(out.dtype.element_ty), mask=mine)


@dataclass(frozen=True, slots=True)
class Plan:
    """What the kernel has to know of a step, as numbers that can go to the GPU together.

    Fields:
        positions: of each token in its sequence.
        places: where its key and value go in the cache.
        pieces: four numbers each: the first token of the step, how many, the position of the first one, and where in
            `tables` the blocks of its sequence begin. First those of a single token.
        singles: how many these are.
        tables: numbers of blocks, of one sequence after the other.
    """

    positions: list[int]
    places: list[int]
    pieces: list[int]
    singles: int
    tables: list[int]

    @classmethod
    def of(cls, spans: Iterable[Span], most: int) -> Self:
        """The plan of spans that `PagedAttention.order` sorted; pieces have at most so many tokens."""
        plan = cls([], [], [], 0, [])
        token = singles = 0
        for span in spans:
            positions = range(span.start, span.end)
            plan.positions.extend(positions)
            plan.places.extend(span.table[at // BLOCK_TOKENS] * BLOCK_TOKENS + at % BLOCK_TOKENS for at in positions)
            singles += span.count == 1
            for begin in range(0, span.count, most):
                count = min(most, span.count - begin)
                plan.pieces.extend((token + begin, count, span.start + begin, len(plan.tables)))
            plan.tables.extend(span.table[: blocks_for(span.end)])
            token += span.count
        return cls(plan.positions, plan.places, plan.pieces, singles, plan.tables)

    @property
    def numbers(self) -> list[int]:
        """All of them in a row; `parts` finds them again."""
        return self.positions + self.places + self.pieces + self.tables


@dataclass(frozen=True, slots=True)
class Tiles:
    """The sizes that a program works with, for one shape of model.

    Fields:
        queries: tokens of a sequence in one program, where it has several.
        keys: at once.
        stages: how many times ahead keys and values are read.
    """

    group: int
    dim: int
    width: int
    queries: int
    keys: int
    stages: int

    @classmethod
    def of(cls, shape: ModelShape, dtype: torch.dtype) -> Self:
        """Small enough for the shared memory of any GPU since 2020, of which a program can have 99 KiB."""
        group = shape.heads // shape.kv_heads
        width = max(_LEAST_ROWS, _power_of_2(shape.head_dim))
        large = width * dtype.itemsize > _LARGEST_ROW_BYTES // 2
        rows, keys, stages = (32, 32, 1) if large else (64, 64, 2)
        return cls(group, shape.head_dim, width, max(1, rows // group), keys, stages)

    def rows(self, queries: int) -> int:
        """The rows of a program for so many tokens: each has one for each head that shares a key."""
        return max(_LEAST_ROWS, _power_of_2(queries * self.group))


class TritonAttention(PagedAttention):
    """Attention that reads the cache's blocks where they lie, on a GPU; in Triton's interpreter also on the CPU."""

    recordable = True

    def __init__(self, cache: KVCache, spans: Sequence[Span], dtype: torch.dtype) -> None:
        tiles = Tiles.of(cache.shape, dtype)
        plan = Plan.of(spans, tiles.queries)
        self.spans = spans
        self._use(cache, tiles, plan, upload(plan.numbers, cache.device), max(span.end for span in spans))

    @classmethod
    def of_plan(cls, cache: KVCache, dtype: torch.dtype, plan: Plan, numbers: Tensor, longest: int) -> Self:
        """Attention for all steps whose plans are as long as `plan`, which must have single tokens only.

        Args:
            numbers: int64; holds the numbers of the step's plan when the attention is called.
            longest: the most tokens of a sequence.
        """
        attention = cls.__new__(cls)
        attention.spans = ()
        attention._use(cache, Tiles.of(cache.shape, dtype), plan, numbers, longest)
        return attention

    def _use(self, cache: KVCache, tiles: Tiles, plan: Plan, numbers: Tensor, longest: int) -> None:
        tokens, pieces = len(plan.positions), len(plan.pieces) // 4
        self._cache, self._tiles, self._longest = cache, tiles, longest
        self._singles, self._several = plan.singles, pieces - plan.singles
        self.positions, self._places = numbers[:tokens], numbers[tokens : 2 * tokens]
        self._pieces, self._tables = numbers[2 * tokens :][: 4 * pieces], numbers[2 * tokens + 4 * pieces :]

    @staticmethod
    def usable(shape: ModelShape, dtype: torch.dtype, device: torch.device) -> bool:
        """Whether the kernels work for such a model there. Compiles them unless that was done before: a few seconds."""
        tiles = Tiles.of(shape, dtype)
        if tiles.width * dtype.itemsize > _LARGEST_ROW_BYTES or tiles.group > _MOST_GROUP:
            return False
        try:
            with launching_on(device):
                _try_out(shape, dtype, device, tiles)
        except Exception:  # no compiler, no memory, a GPU that Triton does not know: torch's attention works on all
            log.warning("Triton's attention cannot be used here, torch's is slower but works", exc_info=True)
            return False
        return True

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        count = len(self._places)
        self._cache.write(layer, self._places, k[:count], v[:count])
        q = q.contiguous()
        # There may be idle tokens behind those of the spans.
        out = torch.empty_like(q) if len(q) == count else torch.zeros_like(q)
        keys, values = self._cache.layer(layer)
        border = 4 * self._singles
        for pieces, number, queries in (
            (self._pieces[:border], self._singles, 1),
            (self._pieces[border:], self._several, self._tiles.queries),
        ):
            if number:
                parts = _parts(number * keys.shape[1], self._longest, q.device)
                _launch(q, keys, values, out, pieces, number, self._tables, self._tiles, queries, parts)
        return out


def _launch(
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    out: Tensor,
    pieces: Tensor,
    number: int,
    tables: Tensor,
    tiles: Tiles,
    queries: int,
    parts: int,
) -> None:
    """Run the kernels over so many pieces of at most `queries` tokens, and over the keys in so many parts."""
    kv_heads, rows = keys.shape[1], tiles.rows(queries)
    mixtures = sums = out  # not written to
    if parts > 1:
        spots = number * kv_heads * parts * rows
        mixtures = q.new_empty(spots, tiles.width, dtype=torch.float32)
        sums = q.new_empty(spots, 2, dtype=torch.float32)
    sizes = {"KV_HEADS": kv_heads, "GROUP": tiles.group, "DIM": tiles.dim, "WIDTH": tiles.width, "ROWS": rows}
    _attend[(number, kv_heads, parts)](
        q,
        keys,
        values,
        out,
        mixtures,
        sums,
        pieces,
        tables,
        tiles.dim**-0.5 * math.log2(math.e),
        **sizes,
        KEYS=tiles.keys,
        BLOCK=BLOCK_TOKENS,
        LEAST=_LEAST_PART,
        PARTED=parts > 1,
        num_warps=4,
        num_stages=tiles.stages,
    )
    if parts > 1:
        _unite[(number, kv_heads)](mixtures, sums, out, pieces, parts, **sizes, num_warps=4)


def _try_out(shape: ModelShape, dtype: torch.dtype, device: torch.device, tiles: Tiles) -> None:
    """Run every kernel once, so that none is compiled while somebody waits for an answer."""
    q = torch.zeros(1, shape.heads, shape.head_dim, dtype=dtype, device=device)
    keys = torch.zeros(BLOCK_TOKENS, shape.kv_heads, shape.head_dim, dtype=dtype, device=device)
    pieces, tables = upload([0, 1, 0, 0], device), upload([0], device)
    out = torch.empty_like(q)
    for queries in {1, tiles.queries}:
        for parts in (1, 2):
            _launch(q, keys, keys, out, pieces, 1, tables, tiles, queries, parts)
    if not bool((out == 0).all()):
        raise RuntimeError("the mean of zeros is not zero")


def _power_of_2(number: int) -> int:
    """The next one that is not smaller."""
    return 1 << (number - 1).bit_length()


def _parts(programs: int, longest: int, device: torch.device) -> int:
    """Into how many parts to divide the keys of every sequence."""
    wanted = _PROGRAMS_EACH * _multiprocessors(device) // programs
    return max(1, min(wanted, _MOST_PARTS, -(-longest // _LEAST_PART)))


@cache
def _multiprocessors(device: torch.device) -> int:
    return 4 if device.type == "cpu" else torch.cuda.get_device_properties(device).multi_processor_count
