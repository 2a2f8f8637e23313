"""Tiny models with random weights, written as Hugging Face directories, and tokenizers to go with them."""

import copy
import json
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

SIZES: dict[str, Any] = {
    "vocab_size": 320,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}

# Between them: three families, grouped and full attention, tied and untied, biases, and every kind of rotation.
CONFIGS: dict[str, dict[str, Any]] = {
    "llama-grouped-llama3": {
        "model_type": "llama",
        "rope_theta": 10_000.0,
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        },
    },
    "llama-full-tied-biased-linear": {
        "model_type": "llama",
        "num_key_value_heads": 4,
        "tie_word_embeddings": True,
        "attention_bias": True,
        "mlp_bias": True,
        "rope_scaling": {"type": "linear", "factor": 4.0},
    },
    "qwen2-grouped-tied": {"model_type": "qwen2", "tie_word_embeddings": True, "rope_theta": 1e6},
    "qwen2-full-dynamic": {
        "model_type": "qwen2",
        "num_key_value_heads": 4,
        "rope_scaling": {"rope_type": "dynamic", "factor": 2.0},
    },
    "qwen3-grouped-yarn": {
        "model_type": "qwen3",
        "head_dim": 32,
        "num_key_value_heads": 1,
        "rope_theta": 1e6,
        "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64},
    },
}

CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)

SPECIAL = ("<|end|>", "<|system|>", "<|user|>", "<|assistant|>")

TEXT = [
    "the quick brown fox jumps over the lazy dog and the cat",
    "grüße aus köln, 你好世界, 🙂🙃 emoji and ünïcödé text",
    "one two three four five six seven eight nine ten",
]


@cache
def byte_level_tokenizer() -> str:
    """tokenizer.json of a byte-level BPE: 256 bytes, a few merges, four special tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(TEXT, trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    return tokenizer.to_str()


@cache
def byte_fallback_tokenizer() -> str:
    """tokenizer.json in the manner of Llama 2: pieces with a lower one eighth block for spaces, bytes beside."""
    words = ["▁hello", "▁world", "▁", "a", "b", "c", "h", "e", "l", "o"]
    vocab = {token: number for number, token in enumerate(["<unk>", "<s>", "</s>"])}
    vocab |= {f"<0x{byte:02X}>": len(vocab) + byte for byte in range(256)}
    vocab |= {word: len(vocab) + place for place, word in enumerate(words)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[], unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([
        decoders.Replace("▁", " "),
        decoders.ByteFallback(),
        decoders.Fuse(),
        decoders.Strip(" ", 1, 0),
    ])  # fmt: skip
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in ("<s>", "</s>")])
    return tokenizer.to_str()


def reference(config: dict[str, Any], seed: int = 0) -> Any:
    """The same model by transformers, in float32, with weights that are random in every parameter."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(seed)
    merged = copy.deepcopy({**SIZES, **config})  # transformers writes into it
    model = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(**merged), dtype=torch.float32, attn_implementation="eager"
    )
    for name, parameter in model.named_parameters():
        # Norms near 1, biases away from 0, so that a forgotten one shows.
        torch.nn.init.normal_(parameter, 1.0 if "norm" in name else 0.0, 0.1 if parameter.dim() > 1 else 0.2)
    return model.eval()


def write_directory(
    path: Path,
    config: dict[str, Any],
    *,
    tensors: dict[str, torch.Tensor] | None = None,
    tokenizer: str | None = None,
    shards: int = 1,
    eos: str | None = None,
) -> Path:
    """A model directory; weights are random where `tensors` is None.

    Args:
        eos: the special token that ends an answer; by default none does.
    """
    path.mkdir(parents=True, exist_ok=True)
    merged = {**SIZES, **config}
    (path / "config.json").write_text(json.dumps(merged))
    (path / "tokenizer.json").write_text(tokenizer or byte_level_tokenizer())
    (path / "tokenizer_config.json").write_text(
        json.dumps({"chat_template": CHAT_TEMPLATE} | ({"eos_token": eos} if eos else {}))
    )
    write_weights(path, tensors or random_tensors(merged), shards)
    return path


def random_tensors(config: dict[str, Any], seed: int = 0) -> dict[str, torch.Tensor]:
    """Weights for `config` without transformers."""
    from parkway.engine.model import Decoder
    from parkway.engine.shape import ModelShape

    generator = torch.Generator().manual_seed(seed)
    decoder = Decoder(ModelShape.from_config({**SIZES, **config}))
    return {
        name: torch.randn(tensor.shape, generator=generator) * 0.1 + (1.0 if "norm" in name else 0.0)
        for name, tensor in decoder.state_dict().items()
    }


def write_weights(path: Path, tensors: dict[str, torch.Tensor], shards: int = 1) -> None:
    """One file, or several with an index."""
    if shards == 1:
        save_file(tensors, path / "model.safetensors")
        return
    weight_map: dict[str, str] = {}
    names = sorted(tensors)
    for shard in range(shards):
        file = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        part = {name: tensors[name] for name in names[shard::shards]}
        save_file(part, path / file)
        weight_map |= dict.fromkeys(part, file)
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def state_of(model: Any) -> dict[str, torch.Tensor]:
    """The tensors of a transformers model as its checkpoint would hold them."""
    tied = model.config.tie_word_embeddings
    return {
        name: tensor.detach().clone().contiguous()
        for name, tensor in model.state_dict().items()
        if not (tied and name == "lm_head.weight")
    }
