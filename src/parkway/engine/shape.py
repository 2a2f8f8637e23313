"""What config.json says about a decoder: sizes, biases, and how positions are rotated."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from parkway.core.errors import ModelFilesError

MODEL_TYPES = ("llama", "qwen2", "qwen3")
ROPE_TYPES = ("default", "linear", "dynamic", "llama3", "yarn")


@dataclass(frozen=True, slots=True)
class Rope:
    """Rotary position embedding: the base and, where the context was stretched, how.

    Fields beyond `theta` and `factor` matter to one type each; the formulas are in `engine/rope.py`.
    """

    type: str = "default"
    theta: float = 10_000.0
    factor: float = 1.0
    original_context: int = 0  # tokens; llama3 and yarn
    low_freq_factor: float = 1.0  # llama3
    high_freq_factor: float = 4.0  # llama3
    attention_factor: float = 1.0  # yarn; multiplies cos and sin
    beta_fast: float = 32.0  # yarn; rotations
    beta_slow: float = 1.0  # yarn; rotations
    truncate: bool = True  # yarn


@dataclass(frozen=True, slots=True)
class ModelShape:
    """The parsed config.json of a Llama, Qwen2 or Qwen3 decoder."""

    model_type: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    context: int  # tokens, prompt and answer together
    rms_norm_eps: float = 1e-6
    tied_embeddings: bool = False
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    rope: Rope = dataclasses.field(default_factory=Rope)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Read the keys of a Hugging Face config.json.

        Raises:
            ModelFilesError: a key is missing or malformed, or asks for something that is not implemented.
                Nothing is guessed: a model that would run wrongly is refused.
        """
        model_type = config.get("model_type")
        if model_type not in MODEL_TYPES:
            raise ModelFilesError(
                f"config.json: model_type is {model_type!r}; the engine runs {', '.join(MODEL_TYPES)}"
            )
        _refuse_unsupported(config)
        heads = _positive(config, "num_attention_heads")
        hidden_size = _positive(config, "hidden_size")
        kv_heads = _positive(config, "num_key_value_heads", default=heads)
        # Qwen3 fixes the size of a head apart from the hidden size; the others derive it unless told.
        head_dim = _positive(config, "head_dim", default=128 if model_type == "qwen3" else hidden_size // heads)
        if heads % kv_heads:
            raise ModelFilesError(
                f"config.json: num_attention_heads {heads} is no multiple of num_key_value_heads {kv_heads}"
            )
        if head_dim % 2:
            raise ModelFilesError(f"config.json: head_dim is {head_dim}; rotation needs an even number")
        context = _positive(config, "max_position_embeddings")
        rope = _rope(config, context)
        if rope.type == "yarn":
            # Qwen writes the length before stretching into max_position_embeddings, others the one after.
            context = max(context, int(rope.factor * rope.original_context))
        attention_bias = _flag(config, "attention_bias") and model_type != "qwen2"
        return cls(
            model_type=model_type,
            vocab_size=_positive(config, "vocab_size"),
            hidden_size=hidden_size,
            intermediate_size=_positive(config, "intermediate_size"),
            layers=_positive(config, "num_hidden_layers"),
            heads=heads,
            kv_heads=kv_heads,
            head_dim=head_dim,
            context=context,
            rms_norm_eps=_number(config, "rms_norm_eps", default=1e-6),
            tied_embeddings=_flag(config, "tie_word_embeddings"),
            qkv_bias=attention_bias or model_type == "qwen2",
            output_bias=attention_bias,
            mlp_bias=_flag(config, "mlp_bias") and model_type == "llama",
            qk_norm=model_type == "qwen3",
            rope=rope,
        )


def _refuse_unsupported(config: Mapping[str, Any]) -> None:
    if config.get("quantization_config") is not None:
        raise ModelFilesError(
            "config.json: quantization_config is set; the engine loads unquantised weights (bf16, fp16, fp32)"
        )
    activation = config.get("hidden_act", "silu")
    if activation not in ("silu", "swish"):
        raise ModelFilesError(f"config.json: hidden_act is {activation!r}; only 'silu' is implemented")
    layer_types = config.get("layer_types")
    if layer_types is not None and not isinstance(layer_types, list):
        raise ModelFilesError(f"config.json: layer_types is {layer_types!r}; expected a list")
    if layer_types is not None:
        other = sorted({str(each) for each in layer_types} - {"full_attention"})
        if other:
            raise ModelFilesError(
                f"config.json: layer_types has {', '.join(other)}; only full_attention is implemented"
            )
    elif (
        config.get("use_sliding_window")
        and config.get("sliding_window") is not None
        and _positive(config, "max_window_layers", default=28) < _positive(config, "num_hidden_layers")
    ):
        raise ModelFilesError(
            "config.json: use_sliding_window is true for some layers; only full attention is implemented"
        )


def _rope(config: Mapping[str, Any], context: int) -> Rope:
    """Read `rope_parameters`, or the older `rope_theta` and `rope_scaling`."""
    given = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(given, Mapping):
        raise ModelFilesError(f"config.json: rope parameters are {given!r}; expected an object")
    rope_type = given.get("rope_type", given.get("type", "default"))
    if rope_type not in ROPE_TYPES:
        raise ModelFilesError(f"config.json: rope_type is {rope_type!r}; the engine knows {', '.join(ROPE_TYPES)}")
    if given.get("partial_rotary_factor", config.get("partial_rotary_factor", 1.0)) not in (None, 1, 1.0):
        raise ModelFilesError("config.json: partial_rotary_factor other than 1.0 is not implemented")
    theta = _number(given, "rope_theta", default=_number(config, "rope_theta", default=10_000.0))
    if theta <= 1:
        raise ModelFilesError(f"config.json: rope_theta is {theta:g}; expected a number above 1")
    if rope_type in ("default", "dynamic"):
        # "dynamic" only departs from the default past max_position_embeddings, and no request gets there.
        return Rope(type=rope_type, theta=theta)
    factor = _number(given, "factor")
    if rope_type == "linear":
        return Rope(type=rope_type, theta=theta, factor=factor)
    # Beside the other parameters or, as some publish it, at the top; the top counts.
    key = "original_max_position_embeddings"
    original_context = _positive(config if config.get(key) is not None else given, key, default=context)
    if rope_type == "llama3":
        low, high = _number(given, "low_freq_factor"), _number(given, "high_freq_factor")
        if low >= high:
            raise ModelFilesError(f"config.json: low_freq_factor {low:g} is not below high_freq_factor {high:g}")
        return Rope(
            type=rope_type,
            theta=theta,
            factor=factor,
            original_context=original_context,
            low_freq_factor=low,
            high_freq_factor=high,
        )
    return Rope(
        type=rope_type,
        theta=theta,
        factor=factor,
        original_context=original_context,
        attention_factor=_yarn_attention_factor(given, factor),
        beta_fast=_number(given, "beta_fast", default=32.0),
        beta_slow=_number(given, "beta_slow", default=1.0),
        truncate=bool(given.get("truncate", True)),
    )


def _yarn_attention_factor(given: Mapping[str, Any], factor: float) -> float:
    """How much YaRN scales attention. Source: Peng et al., 2023, arXiv:2309.00071, equation 22."""
    if given.get("attention_factor") is not None:
        return _number(given, "attention_factor")

    def mscale(weight: float) -> float:
        return 0.1 * weight * math.log(factor) + 1.0 if factor > 1 else 1.0

    if given.get("mscale") and given.get("mscale_all_dim"):
        return mscale(_number(given, "mscale")) / mscale(_number(given, "mscale_all_dim"))
    return mscale(1.0)


def _positive(config: Mapping[str, Any], key: str, default: int | None = None) -> int:
    value = config.get(key)
    if value is None:
        value = default
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ModelFilesError(f"config.json: {key} is {value!r}; expected a positive whole number")
    return value


def _number(config: Mapping[str, Any], key: str, default: float | None = None) -> float:
    value = config.get(key)
    if value is None:
        value = default
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise ModelFilesError(f"config.json: {key} is {value!r}; expected a number above 0")
    return float(value)


def _flag(config: Mapping[str, Any], key: str) -> bool:
    value = config.get(key)
    if value is not None and not isinstance(value, bool):
        raise ModelFilesError(f"config.json: {key} is {value!r}; expected true or false")
    return bool(value)
