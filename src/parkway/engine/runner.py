"""One pass of the model over the tokens of a step."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from parkway.engine.attention import Span
from parkway.engine.backend import Backend
from parkway.engine.cache import KVCache
from parkway.engine.device import launching_on, upload
from parkway.engine.model import Changes, Decoder
from parkway.engine.parallel import Leader


def choose_runner(
    decoder: Decoder | Leader, cache: KVCache, backend: Backend, *, sequences: int, context: int
) -> "Runner":
    """What runs the model on the device of its cache.

    Args:
        sequences: the most in a step.
        context: the most tokens of one.
    """
    if not backend.graphs or isinstance(decoder, Leader):
        return Runner(decoder, cache, backend)
    from parkway.engine.graphs import CudaRecorder, GraphRunner  # imports Triton, which is not everywhere

    record = CudaRecorder(cache.device)
    return GraphRunner(decoder, cache, backend, sequences=sequences, context=context, record=record)


class Runner:
    """Brings a step's tokens to the device of the cache, and runs the model over them there."""

    def __init__(self, decoder: Decoder | Leader, cache: KVCache, backend: Backend) -> None:
        self._decoder = decoder
        self._cache = cache
        self._backend = backend
        self._dtype = next(decoder.parameters()).dtype

    def __call__(
        self, token_ids: list[int], spans: Sequence[Span], changes: Changes | None, wanted: list[int] | None = None
    ) -> Tensor:
        """Hidden states of the tokens.

        Args:
            token_ids: of all spans, one after the other.
            spans: as `PagedAttention.order` sorts them.
            changes: what adapters change.
            wanted: whose states are asked for; None for all.

        Returns:
            [n, hidden_size], a row for each that is wanted; there may be idle rows behind them.
        """
        with launching_on(self._cache.device):
            return self._run(token_ids, spans, changes, wanted)

    def _run(
        self, token_ids: list[int], spans: Sequence[Span], changes: Changes | None, wanted: list[int] | None
    ) -> Tensor:
        attention = self._backend.attention(self._cache, spans, self._dtype)
        # Idle tokens behind the others: matrices are multiplied by kernels that are made for one number of rows each.
        idle = self._backend.rows(len(token_ids)) - len(token_ids)
        positions = F.pad(attention.positions, (0, idle))
        rows = None if wanted is None else upload(self._filled_up(wanted), self._cache.device)
        return self._decoder(upload(token_ids + [0] * idle, self._cache.device), positions, attention, changes, rows)

    def _filled_up(self, wanted: list[int]) -> list[int]:
        rows = wanted or [0]  # no kernel has to know what to make of nothing
        return rows + rows[-1:] * (self._backend.rows(len(rows)) - len(rows))
