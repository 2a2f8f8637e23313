"""The thread that encodes texts, and how what comes of them reaches the event loop."""

import asyncio
import contextlib
import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from parkway.core.errors import Draining, InternalError, Overloaded, ParkwayError
from parkway.core.tasks import start_thread
from parkway.engine.encoder import EncodedText, TextEncoder

log = logging.getLogger(__name__)

_GPU_FAILED = 70  # EX_SOFTWARE of sysexits.h

Reduce = Callable[[EncodedText], Tensor]
"""What a request wants of each text; made in the thread."""


class _Job:
    """The texts of one request, which of them are still to be encoded, and who waits for them."""

    def __init__(self, texts: Sequence[Sequence[int]], reduce: Reduce, done: "asyncio.Future[list[Tensor]]") -> None:
        self.texts = texts
        self.reduce = reduce
        self.done = done
        # Taken from the end, by length: texts that are taken together need little padding.
        self.left = sorted(range(len(texts)), key=lambda index: len(texts[index]), reverse=True)
        self.results: dict[int, Tensor] = {}

    @property
    def finished(self) -> bool:
        return len(self.results) == len(self.texts)


_Text = tuple[_Job, int]
"""A job and the index of one of its texts."""


class EncoderLoop:
    """Encodes in a thread of its own, in rounds that all who wait share.

    A round takes one text of each request in turn until it has `step_tokens`. So small requests join in one pass,
    and a large one delays those that come after it by a round, not by its length.

    Create it on the event loop's thread; everything but the thread's own functions runs there.

    Args:
        step_tokens: the most tokens in a round; one text may be longer.
        queue_limit: the most requests that wait for the encoder.
    """

    def __init__(self, encoder: TextEncoder, *, step_tokens: int, queue_limit: int) -> None:
        self._encoder = encoder
        self._step_tokens = step_tokens
        self._queue_limit = queue_limit
        self._events = asyncio.get_running_loop()
        self._jobs: deque[_Job] = deque()  # the next in turn first; a job leaves with its last text
        self._news = threading.Condition()  # guards `_jobs`; held for moments, never while encoding
        self._closing: ParkwayError | None = None
        self.steps = 0
        self.texts = 0
        self.tokens = 0
        self._thread = start_thread(self._run, name="encoder")

    @property
    def waiting(self) -> int:
        """Requests with texts that no round has taken yet."""
        return len(self._jobs)

    async def run(self, texts: Sequence[Sequence[int]], reduce: Reduce) -> list[Tensor]:
        """What `reduce` makes of each text, in the order of `texts`. Cancelling it takes the rest of them out.

        Raises:
            Overloaded: too many requests wait.
            Draining: the engine is stopping.
        """
        if self._closing is not None:
            raise self._closing
        if not texts:
            return []
        job = _Job(texts, reduce, self._events.create_future())
        with self._news:
            if len(self._jobs) >= self._queue_limit:
                raise Overloaded(
                    f"{self._queue_limit} requests wait already; the engine queues no more", retry_after_s=1.0
                )
            self._jobs.append(job)
            self._news.notify()
        try:
            return await job.done
        finally:
            self._take_out(job)

    def abort(self, error: ParkwayError) -> None:
        """End all who wait with `error`, and take nothing new."""
        self._closing = error
        with self._news:
            jobs = list(self._jobs)
            self._jobs.clear()
        for job in jobs:
            _fail(job, error)

    async def close(self) -> None:
        """Stop the thread, after the texts that wait."""
        self._closing = self._closing or Draining("the engine is stopping and takes no new requests", retry_after_s=5)
        with self._news:
            self._news.notify()
        await asyncio.to_thread(self._thread.join, 30.0)

    def _take_out(self, job: _Job) -> None:
        with self._news, contextlib.suppress(ValueError):
            self._jobs.remove(job)

    def _run(self) -> None:
        """The thread: round after round, until there is none."""
        while texts := self._next_round():
            for batch in _of_similar_length(texts) if self._encoder.padded else [texts]:
                self._encode([(job, index) for job, index in batch if not job.done.done()])

    def _next_round(self) -> list[_Text]:
        """Waits for texts; empty once the engine stops and none are left."""
        taken: list[_Text] = []
        tokens = 0
        with self._news:
            while not self._jobs and self._closing is None:
                self._news.wait()
            while self._jobs:
                job = self._jobs[0]
                tokens += len(job.texts[job.left[-1]])
                if taken and tokens > self._step_tokens:
                    break
                taken.append((job, job.left.pop()))
                self._jobs.popleft()
                if job.left:
                    self._jobs.append(job)
        return taken

    def _encode(self, batch: list[_Text]) -> None:
        """One pass; whoever has all results after it gets them."""
        if not batch:
            return
        jobs = list(dict.fromkeys(job for job, _ in batch))
        texts = [job.texts[index] for job, index in batch]
        try:
            for (job, index), encoded in zip(batch, self._encoder.encode(texts), strict=True):
                job.results[index] = job.reduce(encoded)
        except torch.AcceleratorError:
            log.critical("the GPU failed", exc_info=True)
            os._exit(_GPU_FAILED)  # it computes nothing any more for this process; the next one can use it
        except Exception:  # whatever the cause, those who wait get an answer and the next request a chance
            log.exception("encoding failed")
            for job in jobs:
                self._take_out(job)
                self._events.call_soon_threadsafe(_fail, job, InternalError("the engine failed to encode this text"))
            return
        self.steps += 1
        self.texts += len(texts)
        self.tokens += sum(map(len, texts))
        for job in jobs:
            if job.finished:
                self._events.call_soon_threadsafe(_deliver, job)


def _of_similar_length(texts: list[_Text]) -> list[list[_Text]]:
    """Batches in which no text is padded to more than twice its length."""
    batches: list[list[_Text]] = []
    width = 0
    for job, index in sorted(texts, key=lambda text: len(text[0].texts[text[1]]), reverse=True):
        length = len(job.texts[index])
        if 2 * length < width or not batches:
            batches.append([])
            width = length
        batches[-1].append((job, index))
    return batches


def _deliver(job: _Job) -> None:
    if not job.done.done():
        job.done.set_result([job.results[index] for index in range(len(job.texts))])


def _fail(job: _Job, error: ParkwayError) -> None:
    if not job.done.done():
        job.done.set_exception(error)
