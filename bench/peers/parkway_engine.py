"""Parkway's engine, called directly."""

from __future__ import annotations

import json
import time
from pathlib import Path

import torch

from bench.peers.protocol import Answers, serve
from parkway.core.completions import CompletionRequest
from parkway.core.configuration import parse
from parkway.engine.config import EngineConfig
from parkway.engine.directory import ModelDirectory
from parkway.engine.generator import Generator
from parkway.engine.sequence import Sequence


class ParkwayEngine:
    """A loaded model and the loop that steps it."""

    def load(
        self,
        *,
        model: str,
        threads: int,
        sequences: int,
        context: int,
        settings: dict[str, str],
        **_: object,
    ) -> None:
        given = {"model": model, "max_sequences": sequences, "max_context_tokens": context, **settings}
        config = parse(json.dumps(given), EngineConfig, source="settings of the engine")
        torch.set_num_threads(threads)
        self._generator = Generator.load(ModelDirectory(Path(model)), config)
        self._engine = self._generator.engine

    def generate(self, *, prompts: list[list[int]], tokens: int) -> Answers:
        started = time.perf_counter()
        sequences = self._add(prompts, tokens)
        while any(sequence.completion_tokens == 0 for sequence in sequences):
            self._engine.step()
        prefilled = time.perf_counter()
        self._finish()
        ended = time.perf_counter()
        made = [sequence.tokens[sequence.prompt_tokens :] for sequence in sequences]
        return Answers(prefilled - started, ended - prefilled, made)

    def stream(self, *, prompts: list[list[int]], tokens: int, long_prompts: list[list[int]]) -> list[float]:
        """Seconds between the tokens of answers that are being written while long prompts arrive one by one."""
        streams = self._add(prompts, tokens)
        while any(sequence.completion_tokens == 0 for sequence in streams):
            self._engine.step()
        told_at = dict.fromkeys(streams, time.perf_counter())
        gaps: list[float] = []
        coming = list(long_prompts)
        reading: list[Sequence] = []
        while any(sequence.completion_tokens < tokens for sequence in streams):
            if coming and all(sequence.completion_tokens for sequence in reading):
                reading = self._add([coming.pop()], 1)
            outputs = self._engine.step()
            now = time.perf_counter()
            for sequence, _ in outputs:
                if sequence in told_at:
                    gaps.append(now - told_at[sequence])
                    told_at[sequence] = now
        self._engine.cancel(reading)
        self._finish()
        return gaps

    def _add(self, prompts: list[list[int]], tokens: int) -> list[Sequence]:
        request = CompletionRequest(model="bench", max_tokens=tokens, temperature=0)
        sequences = self._generator.completion(request, prompts)
        self._engine.add(sequences)
        return sequences

    def _finish(self) -> None:
        while self._engine.running or self._engine.waiting:
            self._engine.step()


if __name__ == "__main__":
    engine = ParkwayEngine()
    serve(load=engine.load, generate=engine.generate, stream=engine.stream)
