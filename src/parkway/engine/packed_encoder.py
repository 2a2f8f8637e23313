"""A sentence encoder laid out for our own kernels, which read texts side by side, without padding."""

import logging
import math
from collections.abc import Sequence
from itertools import accumulate, chain

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from parkway.engine.encoder import EncodedText, Encoder, EncoderShape, Layer
from parkway.engine.linear import Bfloat16Linear, Int8Linear, Shelf
from parkway.engine.native import EncoderLayout, Kernels, kernels

log = logging.getLogger(__name__)

_BLOCK = 64  # sizes are multiples of it, and so many numbers are rotated together
_HEAD = 32  # and of a head of this

LEAST_COSINE = 0.999
"""Of the vectors of a packed encoder with those of torch in float32, for it to be used."""

_TRIAL_TOKENS = (3, 20, 125, 250)
_TRIAL_SEED = 1


class PackedEncoder:
    """An `Encoder` whose matrices are in 8 bits or bfloat16; embeddings and norms stay float32. It is a `TextEncoder`.

    A text's vectors are the same to the last bit, whatever the texts beside it.
    """

    padded = False

    def __init__(self, encoder: Encoder, native: Kernels, *, int8_layers: int) -> None:
        """`encoder`: in float32, on the CPU, its hidden size a multiple of 64. Its other layers are in bfloat16."""
        self._native = native
        self._shelf = Shelf()
        self._kept: list[object] = []  # what addresses point to
        shape = encoder.shape
        self._words, self._positions = shape.vocab_size, shape.positions
        own_dim = shape.hidden_size // shape.heads
        self._heads = shape.heads
        self._dim = -(-own_dim // _HEAD) * _HEAD
        if self._heads * self._dim % _BLOCK:
            self._dim += _HEAD
        layers = torch.tensor(
            [self._layer(layer, int8=number < int8_layers) for number, layer in enumerate(encoder.layers)]
        )
        parts = encoder.embeddings
        positions = parts.position_embeddings.weight + parts.token_type_embeddings.weight[0]
        embeddings = [
            self._address(parts.word_embeddings.weight),
            self._address(positions),
            *self._norm(parts.LayerNorm),
        ]
        self._layout = EncoderLayout(
            embeddings=self._address(torch.tensor(embeddings)),
            layers=self._address(layers),
            depth=shape.layers,
            hidden=shape.hidden_size,
            inner=-(-shape.intermediate_size // _BLOCK) * _BLOCK,
            heads=shape.heads,
            head_dim=self._dim,
            scale=1 / (math.log(2) * math.sqrt(own_dim)),
            epsilon=shape.norm_eps,
        )

    def encode(self, texts: Sequence[Sequence[int]]) -> list[EncodedText]:
        lengths = [len(text) for text in texts]
        token_ids = torch.tensor(list(chain.from_iterable(self._checked(text) for text in texts)))
        starts = torch.tensor(list(accumulate(lengths, initial=0)))
        states, means = self._native.encode(self._layout, token_ids, starts, max(lengths))
        return [*map(EncodedText, states.split(lengths), means.unbind())]

    def _checked(self, text: Sequence[int]) -> Sequence[int]:
        """The text; ValueError if the kernels would read what lies beyond."""
        if not (1 <= len(text) <= self._positions and 0 <= min(text) <= max(text) < self._words):
            raise ValueError(f"a text has 1 to {self._positions} tokens, and these are below {self._words}")
        return text

    def _layer(self, layer: Layer, *, int8: bool) -> list[int]:
        """A layer as encoder.c has it."""
        own, inner = layer.attention.self, layer.intermediate.dense
        projections = (own.query, own.key, own.value)
        more = -inner.out_features % _BLOCK
        matrix = self._in_8_bits if int8 else self._in_bfloat16
        return [
            *matrix(
                torch.cat([self._spread(each.weight) for each in projections]),
                torch.cat([self._spread(each.bias[:, None])[:, 0] for each in projections]),
            ),
            *matrix(self._spread(layer.attention.output.dense.weight.T).T, layer.attention.output.dense.bias),
            *matrix(F.pad(inner.weight, (0, 0, 0, more)), F.pad(inner.bias, (0, more))),
            *matrix(F.pad(layer.output.dense.weight, (0, more)), layer.output.dense.bias),
            *self._norm(layer.attention.output.LayerNorm),
            *self._norm(layer.output.LayerNorm),
        ]

    def _spread(self, matrix: Tensor) -> Tensor:
        """Rows of zeros after those of each head, so that its size is one that the kernels know."""
        heads = matrix.unflatten(0, (self._heads, -1))
        return F.pad(heads, (0, 0, 0, self._dim - heads.shape[1])).flatten(0, 1)

    def _in_8_bits(self, weight: Tensor, bias: Tensor) -> tuple[int, int, int]:
        packed = Int8Linear([_rotated(weight)], bias, self._shelf)
        self._kept.append(packed)
        return packed.addresses

    def _in_bfloat16(self, weight: Tensor, bias: Tensor) -> tuple[int, int, int]:
        packed = Bfloat16Linear([weight.bfloat16()], bias, self._shelf)
        self._kept.append(packed)
        return packed.addresses

    def _norm(self, norm: nn.LayerNorm) -> tuple[int, int]:
        return self._address(norm.weight), self._address(norm.bias)

    def _address(self, tensor: Tensor) -> int:
        self._kept.append(tensor)
        return tensor.data_ptr()


@torch.inference_mode()
def packed_for_here(encoder: Encoder) -> "Encoder | PackedEncoder":
    """`encoder` (float32, on the CPU) laid out for the kernels; itself where they cannot do its work well."""
    native = kernels()
    if native is None:
        return encoder
    shape = encoder.shape
    if shape.hidden_size % _BLOCK:
        log.info("torch encodes: the kernels are for sizes that are multiples of 64, not for %d", shape.hidden_size)
        return encoder
    texts = _trial_texts(shape)
    expected = [encoder.encode([text])[0].mean for text in texts]
    # What is rounded in the last layers, no others even out: of MiniLM's six, the last two lose half of what all lose.
    for int8_layers in (shape.layers, shape.layers * 2 // 3, 0):
        packed = PackedEncoder(encoder, native, int8_layers=int8_layers)
        cosine = min(float(text.mean @ mean) for text, mean in zip(packed.encode(texts), expected, strict=True))
        if cosine >= LEAST_COSINE:
            log.info("kernels encode, with %d of %d layers in 8 bits", int8_layers, shape.layers)
            return packed
    log.info("torch encodes: vectors of the kernels would differ too much, to a cosine of %.4f", cosine)
    return encoder


def _trial_texts(shape: EncoderShape) -> list[list[int]]:
    """Words of the vocabulary at random: rounding loses more of these than of what people write."""
    drawn = torch.Generator().manual_seed(_TRIAL_SEED)
    lengths = [min(tokens, shape.positions) for tokens in _TRIAL_TOKENS]
    return [torch.randint(shape.vocab_size, (length,), generator=drawn).tolist() for length in lengths]


def _rotated(weight: Tensor) -> Tensor:
    """[out, in] times the inverse of what the kernels rotate inputs by: Hadamard matrices of 64 by 64."""
    matrix = torch.ones(1, 1)
    while len(matrix) < _BLOCK:
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
    return (weight.unflatten(-1, (-1, _BLOCK)) @ (matrix / _BLOCK)).flatten(-2)
