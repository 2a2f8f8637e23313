"""OpenVINO GenAI, continuous batching on the processor."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from openvino_genai import ContinuousBatchingPipeline, GenerationConfig, SchedulerConfig

from bench.peers.protocol import Answers, serve

# What it computes in is set when it is loaded; 16 bits are 16 bits here.
WEIGHTS = {"bf16": "fp16", "int8": "int8"}
CACHE_GB = 1


class OpenVinoBatching:
    """A converted model, computing in bfloat16, and its scheduler."""

    def load(
        self, *, model: str, work: str, precision: str, threads: int, sequences: int, context: int, **_: object
    ) -> None:
        scheduler = SchedulerConfig()
        scheduler.cache_size = CACHE_GB
        scheduler.max_num_seqs = sequences
        scheduler.max_num_batched_tokens = context
        scheduler.enable_prefix_caching = False  # prompts are fresh: looking for shared blocks would only cost
        properties = {"INFERENCE_PRECISION_HINT": "bf16", "INFERENCE_NUM_THREADS": threads}
        converted = convert(Path(model), Path(work), precision)
        self._pipeline = ContinuousBatchingPipeline(str(converted), scheduler, "CPU", properties)
        self._requests = 0

    def generate(self, *, prompts: list[list[int]], tokens: int) -> Answers:
        config = GenerationConfig()
        config.max_new_tokens = tokens
        config.ignore_eos = True
        config.do_sample = False
        started = time.perf_counter()
        handles = [self._add(prompt, config) for prompt in prompts]
        made: list[list[int]] = [[] for _ in prompts]
        prefilled = 0.0
        while self._pipeline.has_non_finished_requests():
            self._pipeline.step()
            for answer, handle in zip(made, handles, strict=True):
                while handle.can_read():
                    answer += handle.read()[0].generated_ids
            if not prefilled and all(made):
                prefilled = time.perf_counter()
        return Answers(prefilled - started, time.perf_counter() - prefilled, made)

    def _add(self, prompt: list[int], config: GenerationConfig) -> Any:
        self._requests += 1
        ids = openvino.Tensor(np.array([prompt], dtype=np.int64))
        return self._pipeline.add_request(self._requests, ids, config)


def convert(model: Path, work: Path, precision: str) -> Path:
    """The model as OpenVINO reads it; converted in a process of its own, so that ours keeps its memory."""
    path = work / f"openvino-{precision}"
    if not path.is_dir():
        part = path.with_suffix(".part")
        program = Path(sys.executable).with_name("optimum-cli")
        command = [str(program), "export", "openvino", "--model", str(model), "--task", "text-generation-with-past"]
        if subprocess.run([*command, "--weight-format", WEIGHTS[precision], str(part)]).returncode != 0:
            raise RuntimeError("optimum-cli cannot convert the model")
        part.rename(path)
    return path


if __name__ == "__main__":
    peer = OpenVinoBatching()
    serve(load=peer.load, generate=peer.generate)
