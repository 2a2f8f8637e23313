"""A cross-encoder: reads a query and a passage together and says how well the one answers the other."""

import math
import os
import shutil
import time
from collections.abc import Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from parkway.engine.device import CPU, choose_dtype
from parkway.engine.directory import ModelDirectory
from parkway.engine.embedder import NEEDLESS, load_tokenizer, tokens_around
from parkway.engine.encoder import Encoder, EncoderShape, mean_vector
from parkway.engine.packed_encoder import packed_for_here
from parkway.engine.weights import load_module

MAX_QUERY_TOKENS = 64
"""What is beyond is not read: a query shall leave room for the passage."""

TOGETHER = 4
"""Pairs in one pass: so often a reader looks at the clock."""

_COPIED = ("config.json", "tokenizer.json", "sentence_bert_config.json")

_SHARPNESS = 20.0
"""Of the untrained scores, as bi-encoders are trained with it."""


class Pair(NamedTuple):
    """A query and a passage as token ids; the passage begins at `middle`."""

    ids: list[int]
    middle: int


class CrossEncoder(nn.Module):
    """A BERT encoder that reads both, and a head that compares what has become of the one with what of the other.

    Untrained it is the cosine of both means: it begins as the bi-encoder that its weights are from, and what few
    judgements teach is a change of that. Source of reading both together: Nogueira and Cho, 2019, arXiv:1901.04085.
    """

    def __init__(self, shape: EncoderShape) -> None:
        super().__init__()
        self.encoder = Encoder(shape)
        self.same = nn.Parameter(torch.ones(shape.hidden_size))
        self.both = nn.Linear(shape.hidden_size, 1)

    def forward(self, pairs: Sequence[Pair]) -> Tensor:
        """float32 [pairs]: higher is better; only scores for the same query can be compared."""
        found = self.encoder.encode([pair.ids for pair in pairs])
        return torch.stack([self.score(text.states, pair) for text, pair in zip(found, pairs, strict=True)])

    def score(self, states: Tensor, pair: Pair) -> Tensor:
        """Of one pair, by the last hidden states [tokens, hidden_size] of its tokens: float32, without dimensions."""
        states = states.float()
        query, passage = mean_vector(states[: pair.middle]), mean_vector(states[pair.middle :])
        return _SHARPNESS * (query * passage * self.same).sum() + self.both(states.mean(dim=0))[0]


class Pairing:
    """Makes pairs of texts, cut off where the model stops reading. For any thread."""

    def __init__(self, directory: ModelDirectory) -> None:
        self._tokenizer = load_tokenizer(directory)
        self._before, self._after = tokens_around(self._tokenizer)
        positions = EncoderShape.from_config(directory.config).positions
        limit = directory.read_json("sentence_bert_config.json", required=False).get("max_seq_length")
        self.reads = min(positions, limit or positions)

    def pairs(self, query: str, passages: Sequence[str]) -> list[Pair]:
        """The passages, each behind the query."""
        asked = self._cut(query, MAX_QUERY_TOKENS)
        room, before = self.reads - len(asked) + self._before, self._before
        return [Pair(asked + self._cut(text, room)[before:], len(asked)) for text in passages]

    def _cut(self, text: str, most: int) -> list[int]:
        # Of a megabyte of words nothing is read but the beginning.
        ids = self._tokenizer.encode(text[: 64 * most].encode("utf-8", "replace").decode()).ids
        return ids if len(ids) <= most else ids[: most - self._after] + ids[len(ids) - self._after :]


def load_cross_encoder(directory: ModelDirectory) -> CrossEncoder:
    """Raises: ModelFilesError."""
    shape = EncoderShape.from_config(directory.config)
    return load_module(directory.path, lambda: CrossEncoder(shape), torch.float32, needless=())


def untrained(directory: ModelDirectory) -> CrossEncoder:
    """One that scores as the sentence encoder in `directory` would, but for what each text sees of the other.

    Raises: ModelFilesError.
    """
    shape = EncoderShape.from_config(directory.config)
    model = CrossEncoder(shape)
    model.encoder = load_module(directory.path, lambda: Encoder(shape), torch.float32, needless=NEEDLESS)
    nn.init.zeros_(model.both.weight)
    nn.init.zeros_(model.both.bias)
    return model.eval().requires_grad_(False)


def save_cross_encoder(directory: Path, model: CrossEncoder, start: ModelDirectory) -> None:
    """Writes what `load_cross_encoder` reads; all of it is on the disk then.

    Args:
        directory: It must not be there yet.
        start: The model that it was trained from: tokenizer and shape are the same.
    """
    directory.mkdir(mode=0o700, parents=True)
    for file in _COPIED:
        if (start.path / file).exists():
            shutil.copyfile(start.path / file, directory / file)
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    for path in directory.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())


def in_native_type() -> AbstractContextManager[object]:
    """Computes in bfloat16 where the processor multiplies it: nearly twice as fast, and scores differ by 0.01."""
    native = choose_dtype("auto", CPU)
    return torch.autocast("cpu", native, enabled=native == torch.bfloat16)


class CrossReader:
    """A loaded cross-encoder with a thread that reads, for all who ask. It never runs in the thread of who asks."""

    def __init__(self, directory: ModelDirectory, model: CrossEncoder | None = None) -> None:
        """
        Args:
            model: In place of the weights in the directory.

        Raises:
            ModelFilesError: It cannot be loaded.
        """
        self._pairing = Pairing(directory)
        self._model = model or load_cross_encoder(directory)
        self._encoder = packed_for_here(self._model.encoder)
        self._thread = ThreadPoolExecutor(1, "cross-encoder")

    def scores(self, query: str, passages: Sequence[str], seconds: float) -> list[float]:
        """How well each passage answers the query, in their order; only of the first ones where time is over, or the
        reader is closed. Blocks, for `seconds` at most; `math.inf` is as long as it takes.
        """
        until = time.monotonic() + seconds
        scores: list[float] = []
        longest = 0.0
        pairs = self._pairing.pairs(query, passages)
        for start in range(0, len(pairs), TOGETHER):
            began = time.monotonic()
            if began + longest > until:
                break
            try:
                waiting = self._thread.submit(self._read, pairs[start : start + TOGETHER])
            except RuntimeError:  # closed: another one has taken its place
                break
            try:
                scores += waiting.result(None if seconds == math.inf else until - began)
            except (TimeoutError, CancelledError):
                waiting.cancel()
                break
            longest = max(longest, time.monotonic() - began)
        return scores

    def close(self) -> None:
        """Ends its thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _read(self, pairs: Sequence[Pair]) -> list[float]:
        with torch.inference_mode(), in_native_type():
            found = self._encoder.encode([pair.ids for pair in pairs])
            return [float(self._model.score(text.states, pair)) for text, pair in zip(found, pairs, strict=True)]
