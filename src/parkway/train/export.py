"""The model directory that a run leaves: Hugging Face's layout, weights in bfloat16."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer

from parkway.engine.model import Decoder
from parkway.train.tokenizer import END, PAD, save_tokenizer, token_id


def export(directory: Path, model: Decoder, tokenizer: Tokenizer, config: Mapping[str, object]) -> None:
    """Write config.json, generation_config.json, model.safetensors and the tokenizer's files.

    Args:
        directory: made if it is missing; files of these names in it are overwritten.
        config: the config.json; the ids of the special tokens are added.
    """
    directory.mkdir(parents=True, exist_ok=True)
    ends = {"eos_token_id": token_id(tokenizer, END), "pad_token_id": token_id(tokenizer, PAD)}
    _write(directory / "config.json", {**config, **ends})
    # Greedy: what is likeliest is what was learned, and a command line is no place for variety. No answer that was
    # learned is longer than a row; one that goes on has lost its way.
    _write(directory / "generation_config.json", {**ends, "do_sample": False, "max_new_tokens": 256})
    weights = {name: tensor.to(torch.bfloat16).contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    # safetensors makes files that only their owner reads; this one is for everybody who installs the package.
    (directory / "model.safetensors").chmod(0o644)
    save_tokenizer(tokenizer, directory, context=model.shape.context)


def _write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
