"""A sentence encoder that knows nothing, with the tokenizer of `park-embed`: quick to load and to train."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file

from parkway.engine.builtin import PARK_EMBED, resolve
from parkway.engine.directory import ModelDirectory
from parkway.engine.encoder import Encoder, EncoderShape

_SHAPE = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}


def small_encoder(place: Path) -> ModelDirectory:
    """Writes it to an empty directory."""
    embed = resolve(PARK_EMBED)
    for name in ("tokenizer.json", "sentence_bert_config.json"):
        shutil.copyfile(embed / name, place / name)
    config = json.loads((embed / "config.json").read_text()) | _SHAPE
    (place / "config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    save_file(Encoder(EncoderShape.from_config(config)).state_dict(), place / "model.safetensors")
    return ModelDirectory(place)
