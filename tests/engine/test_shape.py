"""Reading config.json: what is understood, and what is refused rather than guessed."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parkway.core.errors import ModelFilesError
from parkway.engine.rope import inverse_frequencies
from parkway.engine.shape import ModelShape
from tests.engine.tiny import CONFIGS, SIZES


def read(**config: Any) -> ModelShape:
    return ModelShape.from_config({**SIZES, "model_type": "llama", **config})


def test_families_differ_where_they_should() -> None:
    assert not read().qkv_bias
    qwen2 = read(model_type="qwen2")
    assert qwen2.qkv_bias
    assert not qwen2.output_bias
    qwen3 = read(model_type="qwen3")
    assert qwen3.qk_norm
    assert qwen3.head_dim == 128


def test_absent_key_value_heads_mean_full_attention() -> None:
    assert read(num_key_value_heads=None).kv_heads == 4


@pytest.mark.parametrize("name", CONFIGS)
def test_new_and_old_spelling_of_rope_agree(name: str) -> None:
    config = dict(CONFIGS[name])
    old = dict(config.pop("rope_scaling", {}))
    kind = old.pop("type", old.pop("rope_type", "default"))
    new = {"rope_theta": config.pop("rope_theta", 10_000.0), "rope_type": kind, **old}
    assert read(**config, rope_parameters=new) == read(**CONFIGS[name])


def test_context_is_what_positions_allow() -> None:
    assert read(max_position_embeddings=77).context == 77
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 100}
    assert read(max_position_embeddings=100, rope_scaling=yarn).context == 400
    assert read(max_position_embeddings=400, rope_scaling=yarn).context == 400


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"model_type": "mixtral"}, "mixtral"),
        ({"model_type": None}, "model_type"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "sliding_attention"),
        ({"use_sliding_window": True, "sliding_window": 64, "max_window_layers": 1}, "use_sliding_window"),
        ({"rope_scaling": {"rope_type": "longrope", "factor": 2.0}}, "longrope"),
        ({"rope_scaling": {"rope_type": "linear"}}, "factor"),
        ({"rope_scaling": {"rope_type": "linear", "factor": "big"}}, "factor"),
        ({"rope_scaling": [1]}, "rope"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ({"rope_theta": 0.5}, "rope_theta"),
        (
            {"rope_scaling": {"type": "llama3", "factor": 2.0, "low_freq_factor": 4.0, "high_freq_factor": 4.0}},
            "low_freq_factor",
        ),
        ({"layer_types": 7}, "layer_types"),
        ({"hidden_size": "64"}, "hidden_size"),
        ({"hidden_size": 0}, "hidden_size"),
        ({"vocab_size": True}, "vocab_size"),
        ({"max_position_embeddings": None}, "max_position_embeddings"),
        ({"num_key_value_heads": 3}, "num_key_value_heads"),
        ({"head_dim": 15}, "head_dim"),
        ({"rms_norm_eps": -1.0}, "rms_norm_eps"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(config: dict[str, Any], named: str) -> None:
    with pytest.raises(ModelFilesError, match=named):
        read(**config)


def test_a_sliding_window_that_no_layer_uses_is_no_obstacle() -> None:
    assert read(use_sliding_window=False, sliding_window=64).layers == 3
    assert read(use_sliding_window=True, sliding_window=64, max_window_layers=3).layers == 3


ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 300),
    st.floats(),
    st.text(max_size=3),
    st.lists(st.integers(), max_size=2),
)
ROPE_KEYS = (
    "factor", "rope_theta", "original_max_position_embeddings", "low_freq_factor", "high_freq_factor", "beta_fast",
    "beta_slow", "attention_factor", "mscale", "mscale_all_dim", "truncate", "partial_rotary_factor",
)  # fmt: skip


@given(
    changes=st.dictionaries(st.sampled_from([*SIZES, "sliding_window", "use_sliding_window", "head_dim"]), ANYTHING),
    rope=st.dictionaries(st.sampled_from(ROPE_KEYS), ANYTHING),
    rope_type=st.sampled_from(["default", "linear", "dynamic", "llama3", "yarn"]),
    model_type=st.sampled_from(["llama", "qwen2", "qwen3"]),
)
def test_whatever_the_file_says_is_read_or_refused_and_never_trips(
    changes: dict[str, Any], rope: dict[str, Any], rope_type: str, model_type: str
) -> None:
    config = {**SIZES, **changes, "model_type": model_type, "rope_scaling": {**rope, "rope_type": rope_type}}
    try:
        shape = ModelShape.from_config(config)
    except ModelFilesError:
        return
    assert inverse_frequencies(shape.rope, shape.head_dim).shape == (shape.head_dim // 2,)
