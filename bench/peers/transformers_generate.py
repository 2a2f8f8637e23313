"""transformers, `generate` on a batch of prompts of equal length."""

from __future__ import annotations

import time

import torch
from transformers import AutoModelForCausalLM, LogitsProcessor

from bench.peers.protocol import Answers, serve


class FirstScores(LogitsProcessor):
    """Notes when the scores of the first token were there."""

    def __init__(self) -> None:
        self.at: float | None = None

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        if self.at is None:
            self.at = time.perf_counter()
        return scores


class TransformersGenerate:
    """A model in bfloat16."""

    def load(self, *, model: str, threads: int, **_: object) -> None:
        torch.set_num_threads(threads)
        self._model = AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16).eval()

    @torch.inference_mode()
    def generate(self, *, prompts: list[list[int]], tokens: int) -> Answers:
        ids = torch.tensor(prompts)
        first = FirstScores()
        started = time.perf_counter()
        made = self._model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=tokens,
            logits_processor=[first],
        )
        ended = time.perf_counter()
        prefilled = first.at or ended
        return Answers(prefilled - started, ended - prefilled, made[:, ids.shape[1] :].tolist())


if __name__ == "__main__":
    peer = TransformersGenerate()
    serve(load=peer.load, generate=peer.generate)
