"""The decoder of the Llama, Qwen2 and Qwen3 families, on one flat row of tokens.

Sequences are not a dimension here: the tokens of every sequence in a step stand behind one another, and the
`Attention` that the caller passes in knows which belong together. So the same decoder serves with a cache and
trains without one. Parameters carry Hugging Face's names.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch.nn.functional as F
from torch import Tensor, nn

from parkway.engine.native import serving
from parkway.engine.rope import inverse_frequencies, rotate, rotation
from parkway.engine.shape import ModelShape


class Attention(Protocol):
    """Causal attention over the tokens of one step; the implementation knows their sequences."""

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend.

        Args:
            layer: index of the layer, from 0.
            q: [tokens, heads, head_dim], rotated.
            k: [tokens, kv_heads, head_dim], rotated.
            v: [tokens, kv_heads, head_dim].

        Returns:
            [tokens, heads, head_dim]; scores are scaled by head_dim ** -0.5.
        """
        ...


class Changes(Protocol):
    """What is added to the outputs of linear layers, such as that of adapters."""

    def add(self, module: nn.Module, x: Tensor, y: Tensor) -> None:
        """Change `y`, what `module` made of `x`, in place: [tokens, in] and [tokens, out]."""
        ...


class RMSNorm(nn.RMSNorm):
    """Divides by the root of the mean square. Source: Zhang and Sennrich, 2019, arXiv:1910.07467."""

    def forward(self, x: Tensor) -> Tensor:
        native = serving(x)
        return super().forward(x) if native is None else native.rms_norm(x, self.weight, self.eps or 0.0)


class SelfAttention(nn.Module):
    """Projections around an `Attention`."""

    def __init__(self, shape: ModelShape, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.head_dim = shape.head_dim
        wide, narrow = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
        self.q_proj = nn.Linear(shape.hidden_size, wide, bias=shape.qkv_bias)
        self.k_proj = nn.Linear(shape.hidden_size, narrow, bias=shape.qkv_bias)
        self.v_proj = nn.Linear(shape.hidden_size, narrow, bias=shape.qkv_bias)
        self.o_proj = nn.Linear(wide, shape.hidden_size, bias=shape.output_bias)
        self.together: nn.Module | None = None  # the first three as one, where they were packed so
        self.q_norm = RMSNorm(shape.head_dim, eps=shape.rms_norm_eps) if shape.qk_norm else None
        self.k_norm = RMSNorm(shape.head_dim, eps=shape.rms_norm_eps) if shape.qk_norm else None

    def forward(
        self,
        x: Tensor,
        cos: Tensor,
        sin: Tensor,
        attention: Attention,
        changes: Changes | None,
        wanted: Tensor | None = None,
    ) -> Tensor:
        projected = _project_all((self.q_proj, self.k_proj, self.v_proj), self.together, x, changes)
        q, k, v = (part.unflatten(-1, (-1, self.head_dim)) for part in projected)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        mixed = attention(self.layer, rotate(q, cos, sin), rotate(k, cos, sin), v)
        if wanted is not None:
            mixed = mixed[wanted]
        return _project(self.o_proj, mixed.flatten(-2), changes)


class MLP(nn.Module):
    """The gated feed-forward block (SwiGLU). Source: Shazeer, 2020, arXiv:2002.05202."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=shape.mlp_bias)
        self.up_proj = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=shape.mlp_bias)
        self.down_proj = nn.Linear(shape.intermediate_size, shape.hidden_size, bias=shape.mlp_bias)
        self.together: nn.Module | None = None  # the first two as one, where they were packed so

    def forward(self, x: Tensor, changes: Changes | None) -> Tensor:
        gate, up = _project_all((self.gate_proj, self.up_proj), self.together, x, changes)
        native = serving(gate)
        mixed = F.silu(gate) * up if native is None else native.gate(gate, up)
        return _project(self.down_proj, mixed, changes)


def _project(linear: nn.Module, x: Tensor, changes: Changes | None) -> Tensor:
    y = linear(x)
    if changes is not None:
        changes.add(linear, x, y)
    return y


def _project_all(
    linears: Sequence[nn.Linear], together: nn.Module | None, x: Tensor, changes: Changes | None
) -> Sequence[Tensor]:
    if together is None:
        return [_project(linear, x, changes) for linear in linears]
    parts = together(x).split([linear.out_features for linear in linears], dim=-1)
    if changes is not None:
        for linear, part in zip(linears, parts, strict=True):
            changes.add(linear, x, part)
    return parts


class Layer(nn.Module):
    """Attention and feed-forward, each on a normalised input and added to the residual."""

    def __init__(self, shape: ModelShape, layer: int) -> None:
        super().__init__()
        self.self_attn = SelfAttention(shape, layer)
        self.mlp = MLP(shape)
        self.input_layernorm = RMSNorm(shape.hidden_size, eps=shape.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(shape.hidden_size, eps=shape.rms_norm_eps)

    def forward(
        self,
        x: Tensor,
        cos: Tensor,
        sin: Tensor,
        attention: Attention,
        changes: Changes | None,
        wanted: Tensor | None = None,
    ) -> Tensor:
        """All tokens [tokens, hidden_size] go into keys and values; only those `wanted` [n] go on, if it is given."""
        mixed = self.self_attn(self.input_layernorm(x), cos, sin, attention, changes, wanted)
        x = (x if wanted is None else x[wanted]) + mixed
        return x + self.mlp(self.post_attention_layernorm(x), changes)


class Trunk(nn.Module):
    """Everything below the output head; named `model` in checkpoints."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(shape.vocab_size, shape.hidden_size)
        self.layers = nn.ModuleList(Layer(shape, layer) for layer in range(shape.layers))
        self.norm = RMSNorm(shape.hidden_size, eps=shape.rms_norm_eps)


class Decoder(nn.Module):
    """A decoder-only language model; the caller loads or initialises its weights."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.shape = shape
        self.model = Trunk(shape)
        # Tied models have no tensor for the head in their checkpoint; `logits` reads the embedding instead.
        self.lm_head = None if shape.tied_embeddings else nn.Linear(shape.hidden_size, shape.vocab_size, bias=False)
        # Not a buffer: `to(bfloat16)` would round the angles, and far positions would lose their place.
        self.frequencies = inverse_frequencies(shape.rope, shape.head_dim)
        self.head: Callable[[Tensor], Tensor] = self._plain_head

    def forward(
        self,
        token_ids: Tensor,
        positions: Tensor,
        attention: Attention,
        changes: Changes | None = None,
        wanted: Tensor | None = None,
    ) -> Tensor:
        """Hidden states after the final norm.

        Args:
            token_ids: int64 [tokens].
            positions: int64 [tokens]; each token's place within its own sequence, from 0.
            attention: knows which tokens belong together.
            changes: added to what linear layers make of the tokens; None changes nothing.
            wanted: int64 [n], the tokens whose states are asked for; None for all. Of the others, whose keys and values
                are all that later tokens need, the rest of the last layer is left out.

        Returns:
            [tokens, hidden_size], or [n, hidden_size].
        """
        frequencies = self.frequencies.to(positions.device)
        cos, sin = rotation(positions, frequencies, self.shape.rope.attention_factor)
        x = self.model.embed_tokens(token_ids)
        last = len(self.model.layers) - 1
        only = wanted if changes is None else None  # changes know their tokens by where they stand
        for number, layer in enumerate(self.model.layers):
            x = layer(x, cos, sin, attention, changes, only if number == last else None)
        x = self.model.norm(x)
        return x if wanted is None or only is not None else x[wanted]

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores of every token of the vocabulary: [n, hidden_size] -> [n, vocab_size]."""
        return self.head(hidden)

    def _plain_head(self, hidden: Tensor) -> Tensor:
        return F.linear(hidden, self.model.embed_tokens.weight) if self.lm_head is None else self.lm_head(hidden)
