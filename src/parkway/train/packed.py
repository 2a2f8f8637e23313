"""Packing: documents laid end to end in rows of equal length, and attention that keeps them apart."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORED = -100  # the target that cross entropy leaves out


@dataclass(frozen=True, slots=True)
class Document:
    """An encoded dialogue."""

    token_ids: Tensor  # int64 [n]
    predicted: Tensor  # bool [n]; whether the model must learn to say each token

    def __len__(self) -> int:
        return len(self.token_ids)


@dataclass(frozen=True, slots=True)
class Batch:
    """One step's rows. `picks` and `targets` have a fixed length, so that the step can be compiled once."""

    token_ids: Tensor  # int64 [rows * row_tokens]
    positions: Tensor  # int64 [rows * row_tokens]; from 0 in each document
    documents: Tensor  # int64 [rows, row_tokens]; which document of the row, from 0; -1 in the filling
    picks: Tensor  # int64 [targets]; places in `token_ids` whose successor is to be predicted, padded with 0
    targets: Tensor  # int64 [targets]; the successors, padded with IGNORED


class PackedAttention:
    """Causal attention within documents, over rows that hold several; an `Attention` of the engine's decoder."""

    def __init__(self, documents: Tensor) -> None:
        """`documents`: [rows, row_tokens], a number for each token's document, unique within its row."""
        row_tokens = documents.shape[1]
        same = documents[:, :, None] == documents[:, None, :]
        earlier = torch.ones(row_tokens, row_tokens, dtype=torch.bool, device=documents.device).tril()
        self.allowed = (same & earlier)[:, None]  # [rows, 1, row_tokens, row_tokens]
        self.rows = documents.shape[0]

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:  # noqa: ARG002 - all layers attend alike
        """[tokens, heads, head_dim] for queries and result, [tokens, kv_heads, head_dim] for keys and values."""
        groups = q.shape[1] // k.shape[1]
        q, k, v = (each.unflatten(0, (self.rows, -1)).transpose(1, 2) for each in (q, k, v))
        if groups > 1:
            k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=self.allowed)
        return mixed.transpose(1, 2).flatten(0, 1)


def fill_rows(documents: Iterable[Document], row_tokens: int, window: int = 1024) -> Iterator[list[Document]]:
    """Group documents into rows of at most `row_tokens`, by first fit over `window` documents, longest first.

    Documents longer than a row are left out.
    """
    waiting: list[Document] = []
    for document in documents:
        if len(document) <= row_tokens:
            waiting.append(document)
        if len(waiting) == window:
            yield from _first_fit(waiting, row_tokens)
            waiting = []
    yield from _first_fit(waiting, row_tokens)


def _first_fit(documents: list[Document], row_tokens: int) -> list[list[Document]]:
    rows: list[list[Document]] = []
    free: list[int] = []
    for document in sorted(documents, key=len, reverse=True):
        at = next((at for at, room in enumerate(free) if room >= len(document)), None)
        if at is None:
            rows.append([])
            free.append(row_tokens)
            at = len(rows) - 1
        rows[at].append(document)
        free[at] -= len(document)
    return rows


def pack(rows: Sequence[list[Document]], row_tokens: int, target_share: float, filling: int) -> Batch:
    """Lay rows of documents out as one batch.

    Args:
        rows: the documents of each row; together at most `row_tokens` tokens a row.
        row_tokens: the length of every row.
        target_share: the batch predicts at most this share of its tokens; surplus ones are left out.
        filling: id of the token that fills rows up; never predicted.
    """
    shape = (len(rows), row_tokens)
    ids = torch.full(shape, filling)
    positions = torch.zeros(shape, dtype=torch.int64)
    numbers = torch.full(shape, -1)
    predicted = torch.zeros(shape, dtype=torch.bool)
    for row, documents in enumerate(rows):
        start = 0
        for number, document in enumerate(documents):
            stop = start + len(document)
            ids[row, start:stop] = document.token_ids
            positions[row, start:stop] = torch.arange(len(document))
            numbers[row, start:stop] = number
            # Nothing precedes a document's first token, so the token before a predicted one is in its document.
            predicted[row, start + 1 : stop] = document.predicted[1:]
            start = stop
    flat = ids.flatten()
    limit = int(flat.numel() * target_share)
    successors = predicted.flatten().nonzero().flatten()[:limit]
    picks = torch.zeros(limit, dtype=torch.int64)
    targets = torch.full((limit,), IGNORED)
    picks[: len(successors)] = successors - 1
    targets[: len(successors)] = flat[successors]
    return Batch(flat, positions.flatten(), numbers, picks, targets)
