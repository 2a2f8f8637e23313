"""What everybody is asked, and the model with which."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.concurrency import LARGE


@dataclass(frozen=True, slots=True)
class Load:
    """The model and the sizes of what is asked of everybody; tokens, where nothing else is said."""

    name: str
    config: dict[str, Any]
    prompt: int
    answer: int
    at_once: tuple[int, ...]
    long_prompt: int
    shared_prefix: int
    stream: int  # length of the answers that are being written while long prompts arrive
    streams: int

    @property
    def context(self) -> int:
        """The longest sequence, with some room."""
        return 2 * self.long_prompt

    @property
    def parameters(self) -> int:
        """Elements of the matrices; vectors are less than a thousandth of them."""
        size = self.config
        kv_size = size["hidden_size"] // size["num_attention_heads"] * size["num_key_value_heads"]
        attention = 2 * size["hidden_size"] * (size["hidden_size"] + kv_size)
        mlp = 3 * size["hidden_size"] * size["intermediate_size"]
        return size["vocab_size"] * size["hidden_size"] + size["num_hidden_layers"] * (attention + mlp)

    @property
    def kv_bytes(self) -> int:
        """Keys and values of one token in bfloat16."""
        head = self.config["hidden_size"] // self.config["num_attention_heads"]
        return 2 * self.config["num_hidden_layers"] * self.config["num_key_value_heads"] * head * 2


WHOLE = Load("whole", LARGE | {"max_position_embeddings": 4096}, 128, 64, (32, 8, 1), 2048, 1024, 96, 8)
QUICK = Load(
    "quick",
    {
        **LARGE,
        "vocab_size": 2048,
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 1024,
    },
    prompt=32,
    answer=8,
    at_once=(32, 8, 1),
    long_prompt=256,
    shared_prefix=128,
    stream=16,
    streams=4,
)


def write_model(path: Path, load: Load) -> Path:
    """The model with random weights in bfloat16, written once."""
    if (path / "whole").is_file():
        return path
    import torch

    from tests.engine.tiny import SIZES, random_tensors, write_directory

    config = {**SIZES, **load.config, "architectures": ["Qwen2ForCausalLM"], "dtype": "bfloat16"}
    # As wide as trained ones at the start: far wider ones blow rounding up until no two programs agree on a token.
    tensors = {
        name: (tensor if tensor.dim() == 1 else tensor * 0.2).to(torch.bfloat16)
        for name, tensor in random_tensors(config).items()
    }
    write_directory(path, config, tensors=tensors, tokenizer=tokenizer(load.config["vocab_size"]))
    (path / "whole").touch()
    return path


def tokenizer(size: int) -> str:
    """tokenizer.json with a text for every token id, so that text is made for each token as it would be."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: token_id for token_id, letter in enumerate(letters)}
    vocabulary |= {f"{token_id:x}_": token_id for token_id in range(len(letters), size)}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return made.to_str()
