"""llama.cpp: all sequences in one batch, as its server decodes them."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np

from bench.peers.protocol import Answers, serve

CONTEXT_STEP = 256
"""llama.cpp rounds the context of a sequence up to a multiple of this."""


@dataclass(frozen=True, slots=True)
class Context:
    """llama.cpp's cache for a number of sequences, and the batch that is filled for each pass."""

    handle: Any
    batch: Any
    vocabulary: int

    def decode(self, columns: list[list[int]], start: int) -> list[int]:
        """Run `columns`, the next tokens of each sequence, at positions from `start`; returns the likeliest next."""
        place, last_places = 0, []
        for sequence, tokens in enumerate(columns):
            for offset, token in enumerate(tokens):
                self.batch.token[place] = token
                self.batch.pos[place] = start + offset
                self.batch.n_seq_id[place] = 1
                self.batch.seq_id[place][0] = sequence
                self.batch.logits[place] = offset == len(tokens) - 1
                place += 1
            last_places.append(place - 1)
        self.batch.n_tokens = place
        status = llama_cpp.llama_decode(self.handle, self.batch)
        if status != 0:
            raise RuntimeError(f"llama_decode returned {status}")
        return [self._likeliest(place) for place in last_places]

    def _likeliest(self, place: int) -> int:
        scores = llama_cpp.llama_get_logits_ith(self.handle, place)
        return int(np.ctypeslib.as_array(scores, shape=(self.vocabulary,)).argmax())


class LlamaCppBatch:
    """A GGUF model, and a context for each size of batch that was asked for."""

    def load(self, *, model: str, work: str, precision: str, threads: int, **_: object) -> None:
        file = Path(work) / f"llama-cpp-{precision}.gguf"
        if not file.is_file():
            part = file.with_suffix(".part")
            # In a process of its own, so that ours keeps its memory.
            subprocess.run([sys.executable, "-m", "bench.peers.gguf_file", model, str(part), precision], check=True)
            part.rename(file)
        llama_cpp.llama_backend_init()
        self._model = llama_cpp.llama_model_load_from_file(str(file).encode(), llama_cpp.llama_model_default_params())
        if not self._model:
            raise RuntimeError(f"llama.cpp cannot load {file}")
        self._threads = threads
        self._contexts: dict[tuple[int, int], Context] = {}

    def generate(self, *, prompts: list[list[int]], tokens: int) -> Answers:
        context = self._context(len(prompts), len(prompts[0]) + tokens)
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context.handle), False)
        started = time.perf_counter()
        latest = context.decode(prompts, 0)
        prefilled = time.perf_counter()
        made = [[token] for token in latest]
        for step in range(tokens - 1):
            latest = context.decode([[token] for token in latest], len(prompts[0]) + step)
            for answer, token in zip(made, latest, strict=True):
                answer.append(token)
        return Answers(prefilled - started, time.perf_counter() - prefilled, made)

    def _context(self, sequences: int, length: int) -> Context:
        """Room for `sequences` of `length` tokens, each with a cache of its own."""
        length = -(-length // CONTEXT_STEP) * CONTEXT_STEP
        key = (sequences, length)
        if key not in self._contexts:
            size = sequences * length
            parameters = llama_cpp.llama_context_default_params()
            parameters.n_ctx = parameters.n_batch = size
            parameters.n_seq_max = sequences
            parameters.n_threads = parameters.n_threads_batch = self._threads
            handle = llama_cpp.llama_init_from_model(self._model, parameters)
            if not handle:
                raise RuntimeError(f"llama.cpp has no context for {sequences} sequences of {length} tokens")
            vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self._model))
            self._contexts[key] = Context(handle, llama_cpp.llama_batch_init(size, 0, 1), vocabulary)
        return self._contexts[key]


if __name__ == "__main__":
    peer = LlamaCppBatch()
    serve(load=peer.load, generate=peer.generate)
