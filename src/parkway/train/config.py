"""What a training run of park-mini is given."""

from pathlib import Path

from pydantic import Field

from parkway.core.configuration import Section


class MiniConfig(Section):
    """A run. The defaults are those of the model that is shipped.

    Fields:
        data: JSON Lines of tldr-pages examples.
        out: the model directory to write.
        minutes: of training; interruptions, data and examination are not counted.
        wordnet: directory of WordNet's database, for questions outside the field.
        start: model directory whose weights and tokenizer the run begins with, instead of random ones.
        outside: JSON Lines whose `text` are questions outside the field, for the examination alone.
        held_out: examples that are never trained.
        rows: rows of `row_tokens` tokens in a step.
        target_share: of a step's tokens, at most, are predicted.
        matrix_rate: learning rate of the matrices inside the layers (Muon).
        vector_rate: learning rate of embeddings and norms (AdamW).
        rate: scales both; less than 1 for a run that goes on from a trained model.
        warmup_share: of the minutes.
        context: tokens that the model accepts, prompt and answer together.
        questions: of each part of the examination.
    """

    data: Path
    out: Path
    minutes: float = Field(default=117.0, gt=0)
    seed: int = 0
    wordnet: Path | None = None
    start: Path | None = None
    outside: tuple[Path, ...] = ()
    held_out: int = Field(default=500, ge=1)
    rows: int = Field(default=32, ge=1)
    row_tokens: int = Field(default=256, ge=32)
    target_share: float = Field(default=0.68, gt=0, le=1)
    matrix_rate: float = Field(default=0.02, gt=0)
    vector_rate: float = Field(default=0.003, gt=0)
    rate: float = Field(default=1.0, gt=0)
    warmup_share: float = Field(default=0.01, gt=0, lt=1)
    vocab_size: int = Field(default=6144, ge=512)
    hidden_size: int = Field(default=320, ge=16)
    layers: int = Field(default=6, ge=1)
    heads: int = Field(default=5, ge=1)
    intermediate_size: int = Field(default=960, ge=16)
    context: int = Field(default=1024, ge=64)
    threads: int = Field(default=2, ge=1)
    compile: bool = True
    log_steps: int = Field(default=20, ge=1)
    examine_steps: int = Field(default=200, ge=1)
    checkpoint_s: float = Field(default=240.0, gt=0)
    questions: int = Field(default=500, ge=1)

    @property
    def work(self) -> Path:
        """Where the run keeps what only the run needs: checkpoint and tokenizer."""
        return self.out.with_name(self.out.name + ".run")

    def architecture(self) -> dict[str, object]:
        """The config.json of the model, in Hugging Face's words."""
        return {
            "architectures": ["Qwen3ForCausalLM"],
            "model_type": "qwen3",
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.heads,
            "head_dim": self.hidden_size // self.heads,
            "hidden_act": "silu",
            "attention_bias": False,
            "max_position_embeddings": self.context,
            "rms_norm_eps": 1e-6,
            "rope_theta": 10000.0,
            "tie_word_embeddings": True,
            "torch_dtype": "bfloat16",
        }
