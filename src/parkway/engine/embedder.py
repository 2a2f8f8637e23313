"""An embedding model, loaded: its tokenizer, its limits, and what it makes of texts."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import torch
from tokenizers import Tokenizer as FastTokenizer
from torch import Tensor

from parkway.core.errors import (
    ContextLengthExceeded,
    DeadlineExceeded,
    InvalidRequest,
    ModelFilesError,
    ParkwayError,
)
from parkway.engine.config import EngineConfig
from parkway.engine.device import CPU, choose_device, choose_dtype
from parkway.engine.directory import ModelDirectory
from parkway.engine.encoder import EncodedText, Encoder, EncoderShape, max_sim, token_vectors
from parkway.engine.encoder_loop import EncoderLoop
from parkway.engine.packed_encoder import packed_for_here
from parkway.engine.weights import load_module

MAX_TEXTS = 2048  # in one request, as OpenAI has it
MAX_DOCUMENTS = 1000  # to rank in one request, as Cohere has it

# Parts of BERT checkpoints that sentence embeddings do not use.
NEEDLESS = ("position_ids", "pooler.dense.weight", "pooler.dense.bias")

# Measured with MiniLM on one core: from 256 tokens on, larger passes cost as much a token and make others wait longer.
_STEP_TOKENS = 1024

_SCORE_DIGITS = 6
"""Of a score, after the point. What is beyond them depends on the neighbours in the batch."""


class Embedder:
    """Turns texts into vectors, and ranks documents. Texts of requests that come at the same time share passes.

    Create it on the event loop's thread. Fields:
        context: the most tokens of a text, the tokenizer's own around it included.
    """

    def __init__(self, directory: ModelDirectory, config: EngineConfig) -> None:
        shape = EncoderShape.from_config(directory.config)
        # Not bfloat16 by default: the model is small, and vectors are compared with those of other computers.
        device = choose_device(config.device)
        dtype = choose_dtype("float32" if config.dtype == "auto" else config.dtype, device)
        encoder = load_module(directory.path, lambda: Encoder(shape), dtype, needless=NEEDLESS, device=device)
        if config.dtype == "auto" and device == CPU:
            encoder = packed_for_here(encoder)
        self._shape = shape
        self._tokenizer = load_tokenizer(directory)
        self._before, self._after = tokens_around(self._tokenizer)
        self._deadline_s = config.request_timeout_s
        limit = directory.read_json("sentence_bert_config.json", required=False).get("max_seq_length")
        self.context = min(shape.positions, config.max_context_tokens, limit or shape.positions)
        step_tokens = max(_STEP_TOKENS, self.context)
        self._loop = EncoderLoop(encoder, step_tokens=step_tokens, queue_limit=config.queue_limit)

    @property
    def dimensions(self) -> int:
        return self._shape.hidden_size

    @property
    def waiting(self) -> int:
        return self._loop.waiting

    @property
    def steps(self) -> int:
        return self._loop.steps

    @property
    def texts(self) -> int:
        return self._loop.texts

    @property
    def tokens(self) -> int:
        return self._loop.tokens

    def tokenise(self, texts: Sequence[str | list[int]]) -> list[list[int]]:
        """Token ids of each text. Not for the event loop.

        Raises:
            InvalidRequest: too many texts, or a token id that does not exist.
            ContextLengthExceeded: a text is too long; nothing is cut off silently.
        """
        if len(texts) > MAX_TEXTS:
            raise InvalidRequest(f"`input` has {len(texts)} texts; at most {MAX_TEXTS} are allowed", param="input")
        read = iter(self._read([text for text in texts if isinstance(text, str)]))
        tokenised = [self._checked(text) if isinstance(text, list) else next(read) for text in texts]
        for index, token_ids in enumerate(tokenised):
            if len(token_ids) > self.context:
                raise ContextLengthExceeded(
                    f"text {index} of `input` has {len(token_ids)} tokens; this model takes at most {self.context}. "
                    "Split it into shorter texts.",
                    param="input",
                )
        return tokenised

    def tokenise_cut(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, cut off where the model stops reading. Not for the event loop."""
        most, after = self.context, self._after
        return [ids if len(ids) <= most else ids[: most - after] + ids[len(ids) - after :] for ids in self._read(texts)]

    def count(self, texts: Sequence[str]) -> list[int]:
        """The tokens of each text, the tokenizer's own around it included. Not for the event loop."""
        return [len(encoding) for encoding in self._tokenizer.encode_batch_fast(list(texts))]

    def tokenise_query(self, query: str) -> list[int]:
        """Token ids of what documents are ranked by. Not for the event loop.

        Raises:
            InvalidRequest: it has no tokens.
            ContextLengthExceeded: it is too long.
        """
        [token_ids] = self._read([query])
        own = self._own_length(token_ids, "`query`", "query")
        if own > self._longest:
            raise ContextLengthExceeded(
                f"`query` has {own} tokens; this model takes at most {self._longest}. Shorten it.", param="query"
            )
        return token_ids

    def tokenise_documents(self, documents: Sequence[str], max_tokens: int | None) -> list[list[int]]:
        """Token ids of documents to rank. Not for the event loop.

        Args:
            max_tokens: longer documents are cut off after so many tokens of their own; None cuts nothing.

        Raises:
            InvalidRequest: too many documents, or one without tokens.
            ContextLengthExceeded: a document is too long.
        """
        if len(documents) > MAX_DOCUMENTS:
            raise InvalidRequest(
                f"`documents` has {len(documents)} documents; at most {MAX_DOCUMENTS} are allowed", param="documents"
            )
        return [self._document(index, ids, max_tokens) for index, ids in enumerate(self._read(documents))]

    async def embed(self, texts: list[list[int]]) -> list[Tensor]:
        """Vectors of texts given as token ids, each float32 [dimensions].

        Raises:
            Overloaded: too many requests wait.
            DeadlineExceeded: the vectors were not there in time.
        """
        async with self._deadline("vectors"):
            return await self._loop.run(texts, lambda text: text.mean)

    async def rank(self, query: list[int], documents: list[list[int]]) -> list[float]:
        """How well each document fits the query, by late interaction: from -1 to 1.

        The tokenizer's own tokens are read with a text and then left out. Equal documents are read once, so that they
        get the same score to the last digit.

        Raises:
            Overloaded: too many requests wait.
            DeadlineExceeded: the scores were not there in time.
        """
        places: dict[tuple[int, ...], int] = {}
        for document in documents:
            places.setdefault(tuple(document), len(places))
        async with self._deadline("scores"):
            [wanted] = await self._loop.run([query], self._own_vectors)
            scores = await self._loop.run(list(places), lambda text: max_sim(wanted, self._own_vectors(text)))
        rounded = [round(score, _SCORE_DIGITS) for score in torch.stack(scores).tolist()]
        return [rounded[places[tuple(document)]] for document in documents]

    def abort(self, error: ParkwayError) -> None:
        """End all who wait with `error`, and take nothing new."""
        self._loop.abort(error)

    async def close(self) -> None:
        """Stop the thread, after the texts that wait."""
        await self._loop.close()

    @asynccontextmanager
    async def _deadline(self, what: str) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._deadline_s):
                yield
        except TimeoutError as error:
            raise DeadlineExceeded(f"the {what} were not there within {self._deadline_s:g} s") from error

    @property
    def _longest(self) -> int:
        """The most tokens of a text's own."""
        return self.context - self._before - self._after

    def _document(self, index: int, token_ids: list[int], max_tokens: int | None) -> list[int]:
        place = f"documents.{index}"
        own = self._own_length(token_ids, f"document {index} of `documents`", place)
        kept = own if max_tokens is None else min(own, max_tokens)
        if kept > self._longest:
            raise ContextLengthExceeded(
                f"document {index} of `documents` has {own} tokens; this model takes at most {self._longest}. Split "
                f"it, or have it cut off with a `max_tokens_per_doc` of at most {self._longest}.",
                param=place,
            )
        return token_ids[: self._before + kept] + token_ids[self._before + own :]

    def _own_length(self, token_ids: list[int], name: str, param: str) -> int:
        """How many tokens of a text are its own rather than the tokenizer's around it."""
        own = len(token_ids) - self._before - self._after
        if own < 1:
            raise InvalidRequest(f"{name} is empty; it needs at least one token", param=param)
        return own

    def _own_vectors(self, text: EncodedText) -> Tensor:
        """Vectors of a text's own tokens: float32 [own tokens, dimensions]."""
        return token_vectors(text.states[self._before : len(text.states) - self._after])

    def _read(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, in the threads of the tokenizer."""
        return [encoding.ids for encoding in self._tokenizer.encode_batch_fast(list(texts))]

    def _checked(self, token_ids: list[int]) -> list[int]:
        size = self._shape.vocab_size
        wrong = next((token for token in token_ids if not 0 <= token < size), None)
        if wrong is not None:
            raise InvalidRequest(
                f"`input`: {wrong} is no token id of this model; they go from 0 to {size - 1}", param="input"
            )
        return token_ids


def load_tokenizer(directory: ModelDirectory) -> FastTokenizer:
    """The tokenizer of a sentence encoder; it cuts nothing off. Raises: ModelFilesError."""
    path = directory.path / "tokenizer.json"
    try:
        tokenizer = FastTokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises bare Exception for a malformed file
        raise ModelFilesError(f"{path}: not a tokenizer: {error}") from error
    # The files of sentence encoders often cut texts off and pad them; here a long text is an error.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def tokens_around(tokenizer: FastTokenizer) -> tuple[int, int]:
    """How many tokens of its own the tokenizer puts before and after a text."""
    special = tokenizer.encode("a").special_tokens_mask
    before = special.index(0)
    return before, len(special) - before - special.count(0)
