"""What encoders' processes share: a clock, and texts in batches of similar length for those that need padding."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np


def timed(embed: Callable[[], Any]) -> dict[str, Any]:
    """Vectors, and the time that they took: on the clock, and of processors."""
    started, started_cpu = time.perf_counter(), time.process_time()
    vectors = embed()
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - started_cpu
    return {"seconds": seconds, "cpu_seconds": cpu_seconds, "vectors": np.asarray(vectors).tolist()}


TOKENS = 1024
"""Of a batch, with what fills it up: for OpenVINO better than less or more, for short and long texts."""


class Batches:
    """What of `texts` goes together, and where its vectors belong."""

    def __init__(self, texts: Sequence[Sequence[int]]) -> None:
        self._count = len(texts)
        self.places: list[list[int]] = []
        for index in sorted(range(len(texts)), key=lambda index: -len(texts[index])):
            if not self.places or (len(self.places[-1]) + 1) * len(texts[self.places[-1][0]]) > TOKENS:
                self.places.append([])
            self.places[-1].append(index)
        self.inputs = [_padded([texts[index] for index in places]) for places in self.places]

    def vectors(self, states: Sequence[np.ndarray]) -> np.ndarray:
        """Means of the hidden states of each batch, of length 1, in the order of the texts."""
        rows = np.empty((self._count, states[0].shape[-1]), np.float32)
        for places, (_, mask), each in zip(self.places, self.inputs, states, strict=True):
            means = (each * mask[:, :, None]).sum(1) / mask.sum(1)[:, None]
            rows[places] = means / np.linalg.norm(means, axis=1, keepdims=True)
        return rows


def _padded(texts: list[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Token ids and their mask, int64 [texts, tokens]."""
    ids = np.zeros((len(texts), max(map(len, texts))), np.int64)
    mask = np.zeros_like(ids)
    for row, text in enumerate(texts):
        ids[row, : len(text)] = text
        mask[row, : len(text)] = 1
    return ids, mask
