"""A sentence encoder of the BERT family: texts in, a vector for each of their tokens out, and what is made of these.

Source: Devlin et al., 2018, arXiv:1810.04805.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from parkway.core.errors import ModelFilesError
from parkway.engine.device import moved


@dataclass(frozen=True, slots=True)
class EncoderShape:
    """The parsed config.json of a BERT encoder."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    positions: int
    types: int
    norm_eps: float

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Read the keys of config.json; raises `ModelFilesError` where one is missing or not supported."""
        for key, only in (("hidden_act", "gelu"), ("position_embedding_type", "absolute")):
            if config.get(key, only) != only:
                raise ModelFilesError(f"config.json: {key} is {config[key]!r}; only {only!r} is implemented")
        try:
            return cls(
                vocab_size=int(config["vocab_size"]),
                hidden_size=int(config["hidden_size"]),
                intermediate_size=int(config["intermediate_size"]),
                layers=int(config["num_hidden_layers"]),
                heads=int(config["num_attention_heads"]),
                positions=int(config["max_position_embeddings"]),
                types=int(config.get("type_vocab_size", 2)),
                norm_eps=float(config.get("layer_norm_eps", 1e-12)),
            )
        except KeyError as error:
            raise ModelFilesError(f"config.json: {error.args[0]} is missing") from error
        except (TypeError, ValueError) as error:
            raise ModelFilesError(f"config.json: a size is not a number: {error}") from error


@dataclass(frozen=True, slots=True)
class EncodedText:
    """What an encoder makes of a text. On the CPU, wherever the encoder is.

    Fields:
        states: the last hidden states, [tokens, hidden_size].
        mean: the vector of the text, float32 [hidden_size], of length 1; may share its memory with others.
    """

    states: Tensor
    mean: Tensor


class TextEncoder(Protocol):
    """Encodes texts that are given as token ids.

    Attributes:
        padded: Texts of a pass are filled up to the longest of them, so that it is better to have equal ones.
    """

    padded: bool

    def encode(self, texts: Sequence[Sequence[int]]) -> list[EncodedText]:
        """In one pass; there is at least one text, and none is empty."""
        ...


class Encoder(nn.Module):
    """BERT without its pooler; parameters carry Hugging Face's names. It is a `TextEncoder`."""

    padded = True

    def __init__(self, shape: EncoderShape) -> None:
        super().__init__()
        self.shape = shape
        self.embeddings = _Embeddings(shape)
        self.encoder = _Layers(shape)

    @property
    def layers(self) -> list["Layer"]:
        return [layer for layer in self.encoder.layer if isinstance(layer, Layer)]

    def forward(self, token_ids: Tensor, present: Tensor) -> Tensor:
        """The last hidden state of each token.

        Args:
            token_ids: int64 [texts, tokens], padded; on the CPU, wherever the encoder is.
            present: bool [texts, tokens]; False at padding; likewise.

        Returns:
            [texts, tokens, hidden_size]; meaningless at padding.
        """
        device = self.embeddings.word_embeddings.weight.device
        return self.encoder(self.embeddings(moved(token_ids, device)), moved(present, device)[:, None, None, :])

    def encode(self, texts: Sequence[Sequence[int]]) -> list[EncodedText]:
        width = max(map(len, texts))
        token_ids = torch.zeros(len(texts), width, dtype=torch.int64)
        present = torch.zeros(len(texts), width, dtype=torch.bool)
        for row, text in enumerate(texts):
            token_ids[row, : len(text)] = torch.tensor(text)
            present[row, : len(text)] = True
        states = self(token_ids, present).cpu()
        own = [states[row, : len(text)] for row, text in enumerate(texts)]
        return [EncodedText(each, mean_vector(each)) for each in own]


class _Embeddings(nn.Module):
    def __init__(self, shape: EncoderShape) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(shape.vocab_size, shape.hidden_size)
        self.position_embeddings = nn.Embedding(shape.positions, shape.hidden_size)
        self.token_type_embeddings = nn.Embedding(shape.types, shape.hidden_size)
        self.LayerNorm = nn.LayerNorm(shape.hidden_size, eps=shape.norm_eps)

    def forward(self, token_ids: Tensor) -> Tensor:
        positions = self.position_embeddings.weight[: token_ids.shape[1]]
        return self.LayerNorm(self.word_embeddings(token_ids) + positions + self.token_type_embeddings.weight[0])


class _Residual(nn.Module):
    """Projects, adds to the input, normalises."""

    def __init__(self, inner: int, hidden: int, eps: float) -> None:
        super().__init__()
        self.dense = nn.Linear(inner, hidden)
        self.LayerNorm = nn.LayerNorm(hidden, eps=eps)

    def forward(self, x: Tensor, inner: Tensor) -> Tensor:
        return self.LayerNorm(x + self.dense(inner))


class _SelfAttention(nn.Module):
    def __init__(self, shape: EncoderShape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.query = nn.Linear(shape.hidden_size, shape.hidden_size)
        self.key = nn.Linear(shape.hidden_size, shape.hidden_size)
        self.value = nn.Linear(shape.hidden_size, shape.hidden_size)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        q, k, v = (
            projection(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for projection in (self.query, self.key, self.value)
        )
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(-2)


class _Attention(nn.Module):
    def __init__(self, shape: EncoderShape) -> None:
        super().__init__()
        self.self = _SelfAttention(shape)  # so checkpoints name it
        self.output = _Residual(shape.hidden_size, shape.hidden_size, shape.norm_eps)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.output(x, self.self(x, mask))


class _Intermediate(nn.Module):
    def __init__(self, shape: EncoderShape) -> None:
        super().__init__()
        self.dense = nn.Linear(shape.hidden_size, shape.intermediate_size)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.dense(x))


class Layer(nn.Module):
    """Attention and feed-forward, each added to its input and then normalised."""

    def __init__(self, shape: EncoderShape) -> None:
        super().__init__()
        self.attention = _Attention(shape)
        self.intermediate = _Intermediate(shape)
        self.output = _Residual(shape.intermediate_size, shape.hidden_size, shape.norm_eps)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = self.attention(x, mask)
        return self.output(x, self.intermediate(x))


class _Layers(nn.Module):
    def __init__(self, shape: EncoderShape) -> None:
        super().__init__()
        self.layer = nn.ModuleList(Layer(shape) for _ in range(shape.layers))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        for layer in self.layer:
            x = layer(x, mask)
        return x


def mean_vector(states: Tensor) -> Tensor:
    """One vector of length 1 for a text. Source: Reimers and Gurevych, 2019, arXiv:1908.10084.

    Args:
        states: [tokens, hidden_size], the tokenizer's own tokens included.

    Returns:
        float32 [hidden_size].
    """
    return F.normalize(states.float().mean(dim=0), dim=-1)


def token_vectors(states: Tensor) -> Tensor:
    """A vector of length 1 for each token: [tokens, hidden_size] -> float32 [tokens, hidden_size]."""
    return F.normalize(states.float(), dim=-1)


def max_sim(query: Tensor, document: Tensor) -> Tensor:
    """Late interaction: each token of the query finds the nearest one of the document; the mean of these cosines.

    Source: Khattab and Zaharia, 2020, arXiv:2004.12832. They sum where we take the mean, so that the score of a long
    query lies between -1 and 1 as that of a short one does.

    Args:
        query: `token_vectors` of the query, [query tokens, hidden_size].
        document: `token_vectors` of the document, [document tokens, hidden_size].

    Returns:
        float32, without dimensions.
    """
    return (query @ document.T).amax(dim=1).mean().clamp(-1.0, 1.0)
