"""The thread that steps the engine, and how its outputs reach the event loop."""

import asyncio
import logging
import os
import threading
from collections.abc import AsyncIterator
from collections.abc import Sequence as Items
from types import TracebackType
from typing import Self

import torch

from parkway.core.errors import Draining, InternalError, ParkwayError
from parkway.core.tasks import start_thread
from parkway.engine.engine import Engine, Outputs
from parkway.engine.sequence import Piece, Sequence

log = logging.getLogger(__name__)

_THREAD_DIED = 70  # EX_SOFTWARE of sysexits.h


class Generation:
    """The answers of one request, as they come. Leaving the context gives up what is not finished."""

    def __init__(self, owner: "EngineLoop", sequences: Items[Sequence]) -> None:
        self._owner = owner
        self._index = {sequence: index for index, sequence in enumerate(sequences)}
        self._unfinished = set(sequences)
        self._arrived: list[tuple[int, Piece]] = []  # bounded by the answers' own length
        self._news = asyncio.Event()

    def put(self, sequence: Sequence, piece: Piece) -> None:
        self._arrived.append((self._index[sequence], piece))
        if piece.last:
            self._unfinished.discard(sequence)
        self._news.set()

    async def batches(self) -> AsyncIterator[list[tuple[int, Piece]]]:
        """Pieces since the last look, each with the index of its sequence, until every answer has ended.

        Raises:
            ParkwayError: an answer cannot be finished.
        """
        while self._unfinished or self._arrived:
            await self._news.wait()
            self._news.clear()
            arrived, self._arrived = self._arrived, []
            for _, piece in arrived:
                if piece.error is not None:
                    raise piece.error
            yield arrived

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._owner.release(list(self._index), list(self._unfinished))


class EngineLoop:
    """Steps the engine in a thread of its own, so that tensor work never blocks the event loop.

    Everything but the thread's own function runs on the event loop's thread.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._events = asyncio.get_running_loop()
        self._generations: dict[Sequence, Generation] = {}
        self._work = threading.Event()
        self._closing = False
        self._abort: ParkwayError | None = None
        self._thread = start_thread(self._run, name="engine")

    def submit(self, sequences: Items[Sequence]) -> Generation:
        """Queue the sequences of one request; raises as `Scheduler.add` does."""
        if self._closing or self._abort is not None:
            raise Draining("the engine is stopping and takes no new requests", retry_after_s=5)
        self.engine.add(sequences)
        generation = Generation(self, sequences)
        self._generations.update(dict.fromkeys(sequences, generation))
        self._work.set()
        return generation

    def release(self, sequences: Items[Sequence], unfinished: Items[Sequence]) -> None:
        """Forget sequences; the unfinished ones leave the engine at its next step."""
        for sequence in sequences:
            self._generations.pop(sequence, None)
        self.engine.cancel(unfinished)
        self._work.set()

    def abort(self, error: ParkwayError) -> None:
        """End everything that waits or runs with `error`, and take nothing new."""
        self._abort = error
        self._work.set()

    async def close(self) -> None:
        """Stop the thread, after the step that it is in."""
        self._closing = True
        self._work.set()
        await asyncio.to_thread(self._thread.join, 30.0)

    def _run(self) -> None:
        """The thread. Without it every request would hang, so if it dies the process does, and is started again."""
        try:
            self._step_on()
        except BaseException:
            log.critical("the engine's thread died", exc_info=True)
            os._exit(_THREAD_DIED)

    def _step_on(self) -> None:
        """Step while there is something to do, sleep while there is not."""
        while not self._closing:
            self._work.wait()
            self._work.clear()
            while not self._closing and (self.engine.running or self.engine.waiting):
                self._hand_over(self._step())

    def _step(self) -> Outputs:
        if self._abort is not None:
            return self.engine.abort(self._abort)
        try:
            return self.engine.step()
        except torch.AcceleratorError:
            raise  # the process cannot compute on the GPU any more; the one that is started in its place can
        except Exception:  # whatever the cause, those who wait get an answer and the next request a chance
            log.exception("a step of the engine failed")
            return self.engine.abort(InternalError("the engine failed in the middle of this answer"))

    def _hand_over(self, outputs: Outputs) -> None:
        if outputs:
            self._events.call_soon_threadsafe(self._deliver, outputs)

    def _deliver(self, outputs: Outputs) -> None:
        for sequence, piece in outputs:
            generation = self._generations.get(sequence)
            if generation is not None:
                generation.put(sequence, piece)
