"""An embedding model, loaded: its tokenizer, its limits, and the thread that encodes."""

import asyncio
import contextlib
import logging
import queue
from collections.abc import Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer as FastTokenizer
from torch import Tensor

from parkway.core.errors import (
    ContextLengthExceeded,
    DeadlineExceeded,
    Draining,
    InternalError,
    InvalidRequest,
    ModelFilesError,
    Overloaded,
    ParkwayError,
)
from parkway.core.tasks import start_thread
from parkway.engine.config import EngineConfig
from parkway.engine.directory import ModelDirectory
from parkway.engine.encoder import Encoder, EncoderShape, encode
from parkway.engine.weights import choose_dtype, load_module

log = logging.getLogger(__name__)

MAX_TEXTS = 2048  # in one request, as OpenAI has it

# Parts of BERT checkpoints that sentence embeddings do not use.
_NEEDLESS = ("position_ids", "pooler.dense.weight", "pooler.dense.bias")


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    """Texts as token ids, and who waits for their vectors."""

    texts: list[list[int]]
    done: "asyncio.Future[list[Tensor]]"


class Embedder:
    """Turns texts into vectors. Texts of requests that come at the same time are encoded together.

    Create it on the event loop's thread. Fields:
        context: the most tokens of a text, the tokenizer's own around it included.
    """

    def __init__(self, directory: ModelDirectory, config: EngineConfig) -> None:
        shape = EncoderShape.from_config(directory.config)
        # Not bfloat16 by default: the model is small, and vectors are compared with those of other computers.
        dtype = choose_dtype("float32" if config.dtype == "auto" else config.dtype)
        self._encoder = load_module(directory.path, lambda: Encoder(shape), dtype, needless=_NEEDLESS)
        self._tokenizer = _tokenizer(directory)
        self._deadline_s = config.request_timeout_s
        limit = directory.read_json("sentence_bert_config.json", required=False).get("max_seq_length")
        self.context = min(shape.positions, config.max_context_tokens, limit or shape.positions)
        self._step_tokens = max(4096, self.context)
        self._events = asyncio.get_running_loop()
        self._jobs: queue.Queue[_Job | None] = queue.Queue(config.queue_limit)
        self._closing: ParkwayError | None = None
        self.steps = 0
        self.texts = 0
        self.tokens = 0
        self._thread = start_thread(self._run, name="encoder")

    @property
    def dimensions(self) -> int:
        return self._encoder.shape.hidden_size

    @property
    def waiting(self) -> int:
        return self._jobs.qsize()

    def tokenise(self, texts: Sequence[str | list[int]]) -> list[list[int]]:
        """Token ids of each text. Not for the event loop.

        Raises:
            InvalidRequest: too many texts, or a token id that does not exist.
            ContextLengthExceeded: a text is too long; nothing is cut off silently.
        """
        if len(texts) > MAX_TEXTS:
            raise InvalidRequest(f"`input` has {len(texts)} texts; at most {MAX_TEXTS} are allowed", param="input")
        tokenised = [
            self._checked(text) if isinstance(text, list) else self._tokenizer.encode(text).ids for text in texts
        ]
        for index, token_ids in enumerate(tokenised):
            if len(token_ids) > self.context:
                raise ContextLengthExceeded(
                    f"text {index} of `input` has {len(token_ids)} tokens; this model takes at most {self.context}. "
                    "Split it into shorter texts.",
                    param="input",
                )
        return tokenised

    async def embed(self, texts: list[list[int]]) -> list[Tensor]:
        """Vectors of texts given as token ids, each float32 [dimensions].

        Raises:
            Overloaded: too many requests wait.
            DeadlineExceeded: the vectors were not there in time.
        """
        if self._closing is not None:
            raise self._closing
        done: asyncio.Future[list[Tensor]] = self._events.create_future()
        if self._jobs.full():
            self._forget_abandoned()
        try:
            self._jobs.put_nowait(_Job(texts, done))
        except queue.Full as error:
            raise Overloaded(
                f"{self._jobs.maxsize} requests wait already; the engine queues no more", retry_after_s=1.0
            ) from error
        try:
            async with asyncio.timeout(self._deadline_s):
                return await done
        except TimeoutError as error:
            raise DeadlineExceeded(f"the vectors were not there within {self._deadline_s:g} s") from error

    async def close(self) -> None:
        """Stop the thread, after the texts that it is at."""
        self._closing = Draining("the engine is stopping and takes no new requests", retry_after_s=5)
        await asyncio.to_thread(self._jobs.put, None)
        await asyncio.to_thread(self._thread.join, 30.0)

    def _forget_abandoned(self) -> None:
        """Give the places of clients that have left to those who wait."""
        with self._jobs.mutex:
            kept = [job for job in self._jobs.queue if job is None or not job.done.cancelled()]
            self._jobs.queue.clear()
            self._jobs.queue.extend(kept)

    def _run(self) -> None:
        """The thread: take what waits, encode it, hand it over."""
        job = self._jobs.get()
        while job is not None:
            jobs = [job]
            with contextlib.suppress(queue.Empty):
                while len(jobs) < 64 and (job := self._jobs.get_nowait()) is not None:
                    jobs.append(job)
            jobs = [job for job in jobs if not job.done.cancelled()]
            try:
                vectors = self._encode([text for job in jobs for text in job.texts])
            except Exception:  # whatever the cause, those who wait get an answer and the next request a chance
                log.exception("encoding failed")
                vectors = None
            self._events.call_soon_threadsafe(_deliver, jobs, vectors)
            if job is not None:
                job = self._jobs.get()

    def _encode(self, texts: list[list[int]]) -> list[Tensor]:
        """Vectors in the order of `texts`; encoded by length, so that little is spent on padding."""
        vectors: list[Tensor | None] = [None] * len(texts)
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        while order:
            # Sorted by length, so the last text taken is the widest.
            count = 1
            while count < len(order) and (count + 1) * len(texts[order[count]]) <= self._step_tokens:
                count += 1
            taken, order = order[:count], order[count:]
            for index, vector in zip(taken, encode(self._encoder, [texts[i] for i in taken]), strict=True):
                vectors[index] = vector
            self.steps += 1
        self.texts += len(texts)
        self.tokens += sum(map(len, texts))
        return [vector for vector in vectors if vector is not None]

    def _checked(self, token_ids: list[int]) -> list[int]:
        size = self._encoder.shape.vocab_size
        wrong = next((token for token in token_ids if not 0 <= token < size), None)
        if wrong is not None:
            raise InvalidRequest(
                f"`input`: {wrong} is no token id of this model; they go from 0 to {size - 1}", param="input"
            )
        return token_ids


def _deliver(jobs: list[_Job], vectors: list[Tensor] | None) -> None:
    """On the event loop: hand each job its share of the vectors, or the news that there are none."""
    for job in jobs:
        if vectors is None:
            if not job.done.done():
                job.done.set_exception(InternalError("the engine failed to encode this text"))
            continue
        own, vectors = vectors[: len(job.texts)], vectors[len(job.texts) :]
        if not job.done.done():
            job.done.set_result(own)


def _tokenizer(directory: ModelDirectory) -> FastTokenizer:
    path = directory.path / "tokenizer.json"
    try:
        tokenizer = FastTokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises bare Exception for a malformed file
        raise ModelFilesError(f"{path}: not a tokenizer: {error}") from error
    # The files of sentence encoders often cut texts off and pad them; here a long text is an error.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
