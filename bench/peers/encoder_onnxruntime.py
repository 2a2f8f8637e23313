"""ONNX Runtime on the processor: fused by its own optimizer, matrices in 8 bits by its dynamic quantisation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.transformers.optimizer import optimize_model
from transformers import AutoModel

from bench.peers.encoder_batches import Batches, timed
from bench.peers.protocol import serve


class OnnxRuntimeEncoder:
    """One session, all threads on each batch."""

    def load(self, *, model: str, work: str, threads: int, **_: object) -> None:
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = threads
        path = convert(Path(model), Path(work))
        self._session = onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])

    def embed(self, *, texts: list[list[int]]) -> dict[str, Any]:
        return timed(lambda: self._vectors(texts))

    def _vectors(self, texts: list[list[int]]) -> np.ndarray:
        batches = Batches(texts)
        return batches.vectors([self._run(ids, mask) for ids, mask in batches.inputs])

    def _run(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        return self._session.run(None, given)[0]


class LastStates(torch.nn.Module):
    """Only what is measured, with arguments that an export can name."""

    def __init__(self, model: Path) -> None:
        super().__init__()
        self.bert = AutoModel.from_pretrained(model, attn_implementation="eager").eval()

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor) -> Any:
        given = {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": token_type_ids}
        return self.bert(**given).last_hidden_state


def convert(model: Path, work: Path) -> Path:
    """The model in 8 bits as ONNX Runtime reads it."""
    path = work / "encoder-int8.onnx"
    if not path.is_file():
        loaded = LastStates(model)
        names = ["input_ids", "attention_mask", "token_type_ids"]
        whole, fused = work / "encoder.onnx", work / "encoder-fused.onnx"
        torch.onnx.export(
            loaded,
            tuple(torch.ones(2, 8, dtype=torch.int64) for _ in names),
            str(whole),
            input_names=names,
            output_names=["last_hidden_state"],
            dynamic_axes={name: {0: "texts", 1: "tokens"} for name in [*names, "last_hidden_state"]},
            opset_version=17,
            dynamo=False,
        )
        config = loaded.bert.config
        optimize_model(
            str(whole), model_type="bert", num_heads=config.num_attention_heads, hidden_size=config.hidden_size
        ).save_model_to_file(str(fused))
        float32 = {"DefaultTensorType": onnx.TensorProto.FLOAT}  # of what its own fused operations give
        quantize_dynamic(fused, path, per_channel=True, weight_type=QuantType.QInt8, extra_options=float32)
    return path


if __name__ == "__main__":
    peer = OnnxRuntimeEncoder()
    serve(load=peer.load, embed=peer.embed)
