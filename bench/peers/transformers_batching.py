"""transformers, continuous batching over a paged cache."""

from __future__ import annotations

import time

import torch
from transformers import AutoModelForCausalLM, ContinuousBatchingConfig, GenerationConfig

from bench.peers.protocol import Answers, serve

PAGE_TOKENS = 256


class TransformersBatching:
    """A model in bfloat16 and the manager that keeps its batch."""

    def load(self, *, model: str, threads: int, sequences: int, context: int, **_: object) -> None:
        torch.set_num_threads(threads)
        loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16, attn_implementation="sdpa")
        # Its own guesses are made for the memory of a GPU. Prompts are fresh: looking for shared pages would only cost.
        batching = ContinuousBatchingConfig(
            page_size=PAGE_TOKENS,
            num_blocks=2 * sequences + context // PAGE_TOKENS,
            max_batch_tokens=context,
            max_requests_per_batch=sequences,
            allow_block_sharing=False,
        )
        generation = GenerationConfig(do_sample=False, eos_token_id=-1, pad_token_id=0)
        self._manager = loaded.init_continuous_batching(generation, batching)
        self._manager.start()

    def generate(self, *, prompts: list[list[int]], tokens: int) -> Answers:
        started = time.perf_counter()
        ids = self._manager.add_requests(inputs=prompts, max_new_tokens=tokens, record_timestamps=True)
        results = {}
        while len(results) < len(prompts):
            result = self._manager.get_result(timeout=1)
            if result is None:
                if not self._manager.is_running():
                    raise RuntimeError(f"its thread ended: {self._manager.background_thread_status.fatal_error}")
                continue
            if result.error is not None:
                raise RuntimeError(result.error)
            results[result.request_id] = result
        ended = time.perf_counter()
        prefilled = max(result.timestamps[0] for result in results.values())
        return Answers(prefilled - started, ended - prefilled, [results[each].generated_tokens for each in ids])


if __name__ == "__main__":
    peer = TransformersBatching()
    serve(load=peer.load, generate=peer.generate)
