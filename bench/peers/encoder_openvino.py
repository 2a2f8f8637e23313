"""OpenVINO on the processor: for many texts a stream for each thread, for one text all threads together."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import openvino

from bench.peers.encoder_batches import Batches, timed
from bench.peers.protocol import serve


class OpenVinoEncoder:
    """The model as optimum converts it, in the type that OpenVINO itself chooses for this processor."""

    def load(self, *, model: str, work: str, threads: int, **_: object) -> None:
        path = convert(Path(model), Path(work))
        core = openvino.Core()

        def compiled(hint: str) -> Any:
            return core.compile_model(
                str(path / "openvino_model.xml"),
                "CPU",
                {"PERFORMANCE_HINT": hint, "INFERENCE_NUM_THREADS": threads},
            )

        self._many, self._one = compiled("THROUGHPUT"), compiled("LATENCY").create_infer_request()
        self._queue = openvino.AsyncInferQueue(self._many)
        self._names = {name for port in self._many.inputs for name in port.get_names()}

    def embed(self, *, texts: list[list[int]]) -> dict[str, Any]:
        return timed(lambda: self._vectors(texts))

    def _vectors(self, texts: list[list[int]]) -> np.ndarray:
        batches = Batches(texts)
        states: list[np.ndarray] = [np.empty(0)] * len(batches.inputs)
        if len(texts) == 1:
            states[0] = self._one.infer(self._inputs(*batches.inputs[0]))[0]
        else:
            self._queue.set_callback(
                lambda request, place: states.__setitem__(place, request.get_output_tensor(0).data.copy())
            )
            for place, (ids, mask) in enumerate(batches.inputs):
                self._queue.start_async(self._inputs(ids, mask), place)
            self._queue.wait_all()
        return batches.vectors(states)

    def _inputs(self, ids: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
        given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        return {name: given[name] for name in self._names & given.keys()}


def convert(model: Path, work: Path) -> Path:
    """The model as OpenVINO reads it."""
    path = work / "encoder-openvino"
    if not path.is_dir():
        part = path.with_suffix(".part")
        program = Path(sys.executable).with_name("optimum-cli")
        command = [str(program), "export", "openvino", "--model", str(model), "--task", "feature-extraction"]
        if (
            subprocess.run([*command, "--library", "transformers", "--weight-format", "fp32", str(part)]).returncode
            != 0
        ):
            raise RuntimeError("optimum-cli cannot convert the model")
        part.rename(path)
    return path


if __name__ == "__main__":
    peer = OpenVinoEncoder()
    serve(load=peer.load, embed=peer.embed)
