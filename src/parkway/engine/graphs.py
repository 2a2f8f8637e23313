"""Steps in which every sequence brings one token, recorded once as CUDA graphs and then replayed.

Such a step is hundreds of small kernels, and to start them one by one takes the processor longer than the GPU needs to
compute them. A graph starts all of them at once, but always with the same shapes and the same memory. So there is one
for each of a few numbers of tokens, to which steps are filled up with idle ones, and all read the step's numbers from
one place.

Source: docs.pytorch.org, "CUDA semantics", section "CUDA Graphs".
"""

import logging
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from parkway.engine.attention import Span
from parkway.engine.backend import Backend
from parkway.engine.cache import KVCache, blocks_for
from parkway.engine.device import put, upload
from parkway.engine.model import Changes, Decoder
from parkway.engine.paged_triton import Plan, TritonAttention
from parkway.engine.runner import Runner

log = logging.getLogger(__name__)

_PLAN_NUMBERS = 7  # of each token: its id, position, place, and the four of its piece


class Recorder(Protocol):
    """Records what a function computes."""

    def __call__(self, function: Callable[[], Tensor]) -> Callable[[], Tensor]:
        """Returns what computes it again from what is then in the same memory.

        Its result is overwritten when it, or another one of this recorder, is called again.
        """
        ...


class CudaRecorder:
    """Records CUDA graphs, which share memory for what lies between their inputs and results.

    They may, because only one at a time is replayed, and its result is used before the next one.
    """

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, function: Callable[[], Tensor]) -> Callable[[], Tensor]:
        graph = torch.cuda.CUDAGraph()
        before = torch.cuda.current_stream()
        try:
            self._stream.wait_stream(before)
            with torch.cuda.stream(self._stream):
                function()  # what libraries do when they are first used cannot be recorded
            before.wait_stream(self._stream)
            # Other threads may use the GPU meanwhile, to load an adapter.
            with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
                result = function()
        finally:
            torch.cuda.set_stream(before)  # a recording that failed leaves its own

        def replay() -> Tensor:
            graph.replay()
            return result

        return replay


class GraphRunner(Runner):
    """Replays a recording where every sequence brings one token and nobody uses an adapter; else runs the model.

    A recording is made when a number of tokens first occurs.

    Args:
        sequences: the most in a step.
        context: the most tokens of one.
        record: makes recordings.
    """

    def __init__(
        self, decoder: Decoder, cache: KVCache, backend: Backend, *, sequences: int, context: int, record: Recorder
    ) -> None:
        super().__init__(decoder, cache, backend)
        self._most = filled_up(sequences)
        self._context = context
        self._record = record
        self._recordings: dict[int, Callable[[], Tensor]] = {}
        self._works = True
        room = self._most * (_PLAN_NUMBERS + blocks_for(context))
        self._numbers = torch.zeros(room, dtype=torch.int64, device=cache.device)

    def _run(
        self, token_ids: list[int], spans: Sequence[Span], changes: Changes | None, wanted: list[int] | None
    ) -> Tensor:
        if changes is None and self._works and self._fits(spans):
            hidden = self._replay(token_ids, spans)
            if hidden is not None:
                return hidden if wanted is None else hidden[upload(wanted, self._cache.device)]
        return super()._run(token_ids, spans, changes, wanted)

    def _fits(self, spans: Sequence[Span]) -> bool:
        return len(spans) <= self._most and all(span.count == 1 and span.end <= self._context for span in spans)

    def _replay(self, token_ids: list[int], spans: Sequence[Span]) -> Tensor | None:
        """The hidden states; None where recordings do not work."""
        size = filled_up(len(spans))
        idle = size - len(spans)
        # Idle tokens are written to the block that belongs to nobody, and read nothing else.
        plan = Plan.of([*spans, *[Span([self._cache.spare], 0, 1)] * idle], most=1)
        put([*token_ids, *[0] * idle, *plan.numbers], self._numbers)
        replay = self._recordings.get(size) or self._new(size, plan)
        return None if replay is None else replay()

    def _new(self, size: int, plan: Plan) -> Callable[[], Tensor] | None:
        """A recording for so many tokens, made of a step that is in place already."""
        token_ids, numbers = self._numbers[:size], self._numbers[size:]
        attention = TritonAttention.of_plan(self._cache, self._dtype, plan, numbers, self._context)
        try:
            recording = self._record(lambda: self._decoder(token_ids, attention.positions, attention))
        except RuntimeError:  # no memory, or something that cannot be recorded: without graphs it works as well
            log.warning("CUDA graphs cannot be recorded here; the engine goes on without them", exc_info=True)
            self._works = False
            self._recordings.clear()
            return None
        self._recordings[size] = recording
        return recording


def filled_up(count: int) -> int:
    """The next number of tokens for which there is a recording: 1, 2, 4, 8, 16, 24 and so on."""
    return 1 << (count - 1).bit_length() if count <= 8 else -(-count // 8) * 8
