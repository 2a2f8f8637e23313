"""Tensor parallelism: each process holds a part of every matrix, and they add their results up.

Heads of attention and columns of the feed-forward block are divided; embeddings, norms and the output head are whole
everywhere. The leader schedules, samples and answers; the others follow it step by step.

Source: Shoeybi et al., 2019, "Megatron-LM", arXiv:1909.08053.
"""

import re
from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed import Store  # pyright: ignore[reportPrivateImportUsage] - as its documentation imports it

from parkway.core.errors import ModelFilesError
from parkway.engine.attention import PagedAttention, Span
from parkway.engine.cache import KVCache
from parkway.engine.model import Attention, Changes, Decoder, Layer
from parkway.engine.shape import ModelShape

_STEP, _WIPE, _STOP = 0, 1, 2
_WAIT = timedelta(days=365)  # the others wait for as long as nobody asks the leader anything

# Which side of a matrix is divided: 0 its outputs, 1 its inputs.
_DIVIDED = (
    (re.compile(r".*\.(q_proj|k_proj|v_proj|gate_proj|up_proj)\.(weight|bias)"), 0),
    (re.compile(r".*\.(o_proj|down_proj)\.weight"), 1),
)
_ADDED_ONCE = re.compile(r".*\.(o_proj|down_proj)\.bias")


class Broken(BaseException):
    """The processes lost one another. No request can be answered any more, so nobody catches this."""


class Group:
    """The processes of one model.

    Args:
        rank: of this process, from 0, which leads.
        store: where they find one another.
        size: how many there are.
    """

    def __init__(self, rank: int, size: int, store: Store) -> None:
        self.rank = rank
        self.size = size
        dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=_WAIT)

    def check(self, shape: ModelShape) -> None:
        """See that a model can be divided; ModelFilesError where it cannot."""
        for name, count in (("heads", shape.heads), ("kv_heads", shape.kv_heads), ("columns", shape.intermediate_size)):
            if count % self.size:
                raise ModelFilesError(
                    f"the model's {count} {name} cannot be divided by {self.size} processes; choose another "
                    "tensor_parallel"
                )

    def part(self, shape: ModelShape) -> ModelShape:
        """What of a model one process has."""
        return replace(
            shape,
            heads=shape.heads // self.size,
            kv_heads=shape.kv_heads // self.size,
            intermediate_size=shape.intermediate_size // self.size,
        )

    def slice(self, name: str, tensor: Tensor) -> Tensor:
        """This process's part of a whole parameter."""
        for pattern, side in _DIVIDED:
            if pattern.fullmatch(name):
                return tensor.chunk(self.size, dim=side)[self.rank].contiguous()
        return torch.zeros_like(tensor) if self.rank and _ADDED_ONCE.fullmatch(name) else tensor

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum of every process's `tensor`, in place."""
        self._do(lambda: dist.all_reduce(tensor))
        return tensor

    def tell(self, message: Iterable[int]) -> None:
        """Send numbers to those who follow."""
        numbers = torch.tensor(list(message))
        self._do(lambda: dist.broadcast(torch.tensor([len(numbers)]), 0))
        self._do(lambda: dist.broadcast(numbers, 0))

    def hear(self) -> list[int]:
        """What the leader tells."""
        size = torch.zeros(1, dtype=torch.int64)
        self._do(lambda: dist.broadcast(size, 0))
        numbers = torch.zeros(int(size), dtype=torch.int64)
        self._do(lambda: dist.broadcast(numbers, 0))
        return numbers.tolist()

    def close(self) -> None:
        dist.destroy_process_group()

    def _do(self, collective: Any) -> None:
        try:
            collective()
        except RuntimeError as error:
            raise Broken(f"a process of the model is gone: {error}") from error


class Summed(nn.Module):
    """A linear layer whose inputs are divided between processes."""

    def __init__(self, inner: nn.Module, group: Group) -> None:
        super().__init__()
        self.inner = inner
        self._group = group

    def forward(self, x: Tensor) -> Tensor:
        return self._group.sum(self.inner(x))


def divide(decoder: Decoder, group: Group) -> None:
    """Let a decoder that holds one process's part add its results to the others'."""
    for layer in decoder.model.layers:
        assert isinstance(layer, Layer), "a decoder is made of layers"  # noqa: S101
        layer.self_attn.o_proj = Summed(layer.self_attn.o_proj, group)  # pyright: ignore[reportAttributeAccessIssue]
        layer.mlp.down_proj = Summed(layer.mlp.down_proj, group)  # pyright: ignore[reportAttributeAccessIssue]


class Leader(nn.Module):
    """A divided decoder that takes the others along."""

    def __init__(self, decoder: Decoder, group: Group) -> None:
        super().__init__()
        self.decoder = decoder
        self.shape = decoder.shape
        self._group = group

    def forward(
        self,
        token_ids: Tensor,
        positions: Tensor,
        attention: Attention,
        changes: Changes | None = None,
        wanted: Tensor | None = None,
    ) -> Tensor:
        if not isinstance(attention, PagedAttention) or changes is not None:
            raise TypeError("the others can only follow an attention over the cache, without adapters")
        self._group.tell(_step_message(token_ids, attention.spans))
        hidden = self.decoder(token_ids, positions, attention)
        return hidden if wanted is None else hidden[wanted]

    def logits(self, hidden: Tensor) -> Tensor:
        return self.decoder.logits(hidden)

    def stop(self) -> None:
        """Send the others home."""
        self._group.tell([_STOP])


class LedCache(KVCache):
    """The leader's part of a divided cache; the others wipe theirs with it."""

    def __init__(self, shape: ModelShape, dtype: torch.dtype, *, blocks: int, group: Group) -> None:
        super().__init__(shape, dtype, blocks=blocks)
        self._group = group

    def wipe(self, blocks: Iterable[int]) -> None:
        blocks = list(blocks)
        self._group.tell([_WIPE, *blocks])
        super().wipe(blocks)


@torch.inference_mode()
def follow(decoder: Decoder, cache: KVCache, group: Group, attention: type[PagedAttention] = PagedAttention) -> None:
    """Take part in every step of the leader, until it says that there are no more."""
    dtype = next(decoder.parameters()).dtype
    while True:
        kind, *rest = group.hear()
        if kind == _STOP:
            return
        if kind == _WIPE:
            cache.wipe(rest)
            continue
        token_ids, spans = _read_step(rest)
        step = attention(cache, spans, dtype)
        decoder(token_ids, F.pad(step.positions, (0, len(token_ids) - len(step.positions))), step)


def _step_message(token_ids: Tensor, spans: Iterable[Span]) -> list[int]:
    spans = list(spans)
    message = [_STEP, len(token_ids), len(spans), *token_ids.tolist()]
    for span in spans:
        message += [span.start, span.count, len(span.table), *span.table]
    return message


def _read_step(message: list[int]) -> tuple[Tensor, list[Span]]:
    tokens, count = message[:2]
    place = 2 + tokens
    token_ids = torch.tensor(message[2:place])
    spans: list[Span] = []
    for _ in range(count):
        start, own, blocks = message[place : place + 3]
        spans.append(Span(message[place + 3 : place + 3 + blocks], start, own))
        place += 3 + blocks
    return token_ids, spans
