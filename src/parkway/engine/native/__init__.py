"""Kernels of our own, in C, for processors with AVX-512.

They multiply matrices in 8 bits and in bfloat16, attend over pages, and do what stands between. They are compiled when
Parkway is installed (tools/build_kernels.py) and never later. `kernels()` is None where the library was not built, or
the processor lacks the instructions; then torch does the work.

Tensors are on the CPU. Where nothing else is said they are bfloat16, and their rows may lie apart.
"""

import ctypes
import enum
import functools
import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from parkway.engine.native.sources import digest

log = logging.getLogger(__name__)

LIBRARY = Path(__file__).parent / "kernels.so"
QUERIES = 16
"""New tokens that attention takes at once."""

PART = 1024
"""Keys that one thread reads; a longer sequence is divided, so that one alone keeps all threads busy."""

_P, _N, _I, _F = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int, ctypes.c_float


@functools.cache
def kernels() -> "Kernels | None":
    """The kernels, where this machine can run them."""
    if os.environ.get("PARKWAY_KERNELS") == "off" or not LIBRARY.is_file():
        return None
    library = ctypes.CDLL(str(LIBRARY))
    library.parkway_sources.restype = ctypes.c_char_p
    if library.parkway_sources().decode() != digest(LIBRARY.parent):
        log.warning("%s was compiled from other sources and is not used; install Parkway again", LIBRARY)
        return None
    if not library.parkway_supported():
        return None
    return Kernels(library, tiles=os.environ.get("PARKWAY_KERNELS") != "no-tiles")


def serving(x: Tensor) -> "Kernels | None":
    """The kernels, if they can compute with `x`; they know nothing of gradients."""
    if x.dtype != torch.bfloat16 or x.device.type != "cpu" or not torch.is_inference_mode_enabled():
        return None
    return kernels()


@dataclass(frozen=True, slots=True)
class Plan:
    """How attention divides a step.

    Fields:
        pieces: int64 [n, 7]: the first row of q, how many (up to `QUERIES`), the first one's position in its sequence,
            where in `tables` the sequence's pages begin, the keys from one position to another, and the slot for what
            comes of them, or -1 where they are all that is seen.
        tables: int64, numbers of pages.
        mergers: int64 [m, 4]: rows as in a piece, their first slot, and how many follow one another.
        slots: how many there are.
    """

    pieces: Tensor
    tables: Tensor
    mergers: Tensor
    slots: int

    @classmethod
    def of(cls, spans: Iterable[tuple[Sequence[int], int, int]]) -> "Plan":
        """For new tokens of sequences, one behind the other: each a table, the first position, how many."""
        pieces: list[tuple[int, ...]] = []
        mergers: list[tuple[int, int, int, int]] = []
        tables: list[int] = []
        row = slots = 0
        for table, position, count in spans:
            for first in range(0, count, QUERIES):
                own = min(QUERIES, count - first)
                queries = (row + first, own, position + first, len(tables))
                end = position + first + own
                starts = range(0, end, PART)
                if len(starts) == 1:
                    pieces.append((*queries, 0, end, -1))
                    continue
                mergers.append((row + first, own, slots, len(starts)))
                for start in starts:
                    pieces.append((*queries, start, min(end, start + PART), slots))
                    slots += 1
            tables += table
            row += count
        return cls(torch.tensor(pieces), torch.tensor(tables), torch.tensor(mergers), slots)


class Tiles(enum.IntEnum):
    """Whose tiles multiply matrices: nobody's, those of the processor (AMX), or the library's own, which tests use."""

    NONE = 0
    REAL = 1
    EMULATED = 2


class EncoderLayout(ctypes.Structure):
    """An encoder as `Kernels.encode` reads it: addresses of its weights, and sizes; see encoder.c."""

    _fields_ = (
        ("embeddings", _P),
        ("layers", _P),
        ("depth", _N),
        ("hidden", _N),
        ("inner", _N),
        ("heads", _N),
        ("head_dim", _N),
        ("scale", _F),
        ("epsilon", _F),
    )


class Kernels:
    """The functions of the library, with tensors for pointers.

    Fields:
        int8_tiles, bfloat16_tiles: what multiplies matrices of these; `REAL` where that was tried and is right.
    """

    def __init__(self, library: ctypes.CDLL, *, tiles: bool = True) -> None:
        """`tiles`: use the processor's where it has them."""

        def function(name: str, *signature: Any) -> Any:
            found = getattr(library, f"parkway_{name}")
            found.argtypes = signature
            return found

        self._linear_int8 = function("linear_int8", _P, _N, _N, _I, _P, _N, _P, _P, _N, _P, _P, _P, _P, _I, _I)
        self._pack_bfloat16 = function("pack_bfloat16", _P, _N, _N, _P, _I)
        self._pack_int8 = function("pack_int8", _P, _N, _N, _I, _N, _P, _P, _I)
        self._linear_bfloat16 = function("linear_bfloat16", _P, _N, _N, _P, _P, _N, _P, _I, _I)
        self._attend = function("attend", _P, _P, _P, _P, _N, _P, _P, _N, _P, _P, _N, _N, _N, _I)
        self._write = function("write", _P, _N, _P, _N, _P, _N, _N, _N, _P, _P, _I)
        self._rms_norm = function("rms_norm", _P, _N, _P, _F, _P, _N, _N, _I)
        self._rotate = function("rotate", _P, _N, _P, _P, _P, _N, _N, _N, _I)
        self._gate = function("gate", _P, _P, _N, _P, _N, _N, _I)
        self._encode = function("encode", _P, _P, _P, _N, _N, _P, _P, _P, _P, _I, _I, _I)
        library.parkway_use_threads_of.argtypes = [_P]
        library.parkway_use_threads_of(_threads())
        self.int8_tiles, self.bfloat16_tiles = _tiles(library) if tiles else (Tiles.NONE, Tiles.NONE)

    def pack_bfloat16(self, weights: Sequence[Tensor], out: Tensor) -> None:
        """Bring matrices [channels, inputs], one below the other, into panels: [panels, inputs / 2, 64, 2]."""
        weights = [weight.contiguous() for weight in weights]
        rows = _rows(weights)
        inputs = weights[0].shape[1]
        _check(self._pack_bfloat16(rows.data_ptr(), len(rows), inputs, out.data_ptr(), torch.get_num_threads()))

    def pack_int8(self, weights: Sequence[Tensor], out: Tensor) -> Tensor:
        """The same in 8 bits; the matrices are bfloat16 or float32, the panels [panels, padded / 4, 64, 4].

        Returns:
            The scales of the channels: float32 [channels].
        """
        weights = [weight.contiguous() for weight in weights]
        rows = _rows(weights)
        scales = torch.empty(len(rows))
        _check(
            self._pack_int8(
                rows.data_ptr(),
                len(rows),
                weights[0].shape[1],
                weights[0].dtype == torch.float32,
                out.shape[1] * 4,
                out.data_ptr(),
                scales.data_ptr(),
                torch.get_num_threads(),
            )
        )
        return scales

    def linear_int8(
        self, x: Tensor, weight: Tensor, padded: int, scales: Tensor, bias: Tensor | None, channels: int
    ) -> Tensor:
        """`x @ weight.T + bias`, every row of `x` rounded to 8 bits.

        Args:
            x: [tokens, inputs], bfloat16 or float32.
            weight: uint8, in panels; see `pack_int8`.
            padded: inputs, rounded up to whole panels.
            scales: float32 [channels].
            bias: float32 [channels].

        Returns:
            [tokens, channels] in the type of `x`.
        """
        x = x.contiguous()
        tokens = x.shape[0]
        out = x.new_empty(tokens, channels)
        room = torch.empty(tokens * (padded + 8), dtype=torch.int8)
        rows = room.data_ptr()
        _check(
            self._linear_int8(
                x.data_ptr(),
                tokens,
                x.shape[1],
                x.dtype == torch.float32,
                weight.data_ptr(),
                padded,
                scales.data_ptr(),
                None if bias is None else bias.data_ptr(),
                channels,
                out.data_ptr(),
                rows,
                rows + tokens * padded,
                rows + tokens * (padded + 4),
                self.int8_tiles,
                torch.get_num_threads(),
            )
        )
        return out

    def linear_bfloat16(self, x: Tensor, weight: Tensor, bias: Tensor | None, channels: int) -> Tensor:
        """`x @ weight.T + bias`: x [tokens, inputs], weight in panels (`pack_bfloat16`), bias float32 [channels]."""
        x = x.contiguous()
        out = x.new_empty(x.shape[0], channels)
        _check(
            self._linear_bfloat16(
                x.data_ptr(),
                x.shape[0],
                x.shape[1],
                weight.data_ptr(),
                None if bias is None else bias.data_ptr(),
                channels,
                out.data_ptr(),
                self.bfloat16_tiles,
                torch.get_num_threads(),
            )
        )
        return out

    def attend(self, q: Tensor, keys: Tensor, values: Tensor, plan: "Plan") -> Tensor:
        """Causal attention of new tokens over the cache.

        Args:
            q: [tokens, heads, head_dim]; head_dim is a multiple of 32.
            keys, values: [places, kv_heads, head_dim] in size, as `write` lays them: for each page of 32 places and
                each head, keys [head_dim / 2, 32, 2] and values [16, head_dim, 2].

        Returns:
            As `q`; zeros in rows of which the plan does not speak.
        """
        q = q.contiguous()
        out = torch.zeros_like(q)
        heads, kv_heads, head_dim = q.shape[1], keys.shape[1], q.shape[2]
        parts = torch.empty(plan.slots * QUERIES * heads * (head_dim + 2))
        _check(
            self._attend(
                q.data_ptr(),
                keys.data_ptr(),
                values.data_ptr(),
                plan.pieces.data_ptr(),
                len(plan.pieces),
                plan.tables.data_ptr(),
                plan.mergers.data_ptr(),
                len(plan.mergers),
                parts.data_ptr(),
                out.data_ptr(),
                heads,
                kv_heads,
                head_dim,
                torch.get_num_threads(),
            )
        )
        return out

    def write(self, k: Tensor, v: Tensor, places: Tensor, keys: Tensor, values: Tensor) -> None:
        """Put k and v [tokens, kv_heads, head_dim] at `places` (int64 [n], of the first n tokens) of the cache.

        Each place at most once; head_dim is a multiple of 32.
        """
        _check(
            self._write(
                k.data_ptr(),
                k.stride(0),
                v.data_ptr(),
                v.stride(0),
                places.data_ptr(),
                len(places),
                k.shape[1],
                k.shape[2],
                keys.data_ptr(),
                values.data_ptr(),
                torch.get_num_threads(),
            )
        )

    def rms_norm(self, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        """x [..., size] divided by the root of its mean square, times weight [size]."""
        x = x.contiguous()
        out = torch.empty_like(x)
        size = x.shape[-1]
        _check(
            self._rms_norm(
                x.data_ptr(),
                size,
                weight.data_ptr(),
                epsilon,
                out.data_ptr(),
                x.numel() // size,
                size,
                torch.get_num_threads(),
            )
        )
        return out

    def rotate(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """The pairs (i, i + size / 2) of x [tokens, heads, size] turned; cos and sin float32 [tokens, 1, size]."""
        tokens, heads, size = x.shape
        if x.stride()[1:] != (size, 1):
            x = x.contiguous()
        out = x.new_empty(x.shape)
        _check(
            self._rotate(
                x.data_ptr(),
                x.stride(0),
                cos.data_ptr(),
                sin.data_ptr(),
                out.data_ptr(),
                tokens,
                heads,
                size,
                torch.get_num_threads(),
            )
        )
        return out

    def gate(self, x: Tensor, up: Tensor) -> Tensor:
        """silu(x) * up: both [rows, size]."""
        if x.stride() != up.stride() or x.stride(1) != 1:
            x, up = x.contiguous(), up.contiguous()
        out = x.new_empty(x.shape)
        _check(
            self._gate(
                x.data_ptr(),
                up.data_ptr(),
                x.stride(0),
                out.data_ptr(),
                x.shape[0],
                x.shape[1],
                torch.get_num_threads(),
            )
        )
        return out

    def encode(self, layout: EncoderLayout, token_ids: Tensor, starts: Tensor, longest: int) -> tuple[Tensor, Tensor]:
        """Texts through a whole sentence encoder.

        Args:
            token_ids: int64 [tokens], text behind text; each within the vocabulary.
            starts: int64 [texts + 1]: where each text begins, and where the last one ends; none is empty.
            longest: the most tokens of a text; not more than there are positions.

        Returns:
            The last hidden states, float32 [tokens, hidden], and the mean of each text's, of length 1, [texts, hidden].
        """
        tokens, texts, attended = len(token_ids), len(starts) - 1, layout.heads * layout.head_dim
        states, means = torch.empty(tokens, layout.hidden), torch.empty(texts, layout.hidden)
        room = torch.empty(tokens, 4 * attended, dtype=torch.bfloat16)
        _check(
            self._encode(
                ctypes.addressof(layout),
                token_ids.data_ptr(),
                starts.data_ptr(),
                texts,
                longest,
                states.data_ptr(),
                means.data_ptr(),
                room.data_ptr(),
                room.data_ptr() + tokens * 3 * attended * room.itemsize,
                self.int8_tiles,
                self.bfloat16_tiles,
                torch.get_num_threads(),
            )
        )
        return states, means


def _rows(weights: Sequence[Tensor]) -> Tensor:
    """Where the rows of contiguous matrices begin: addresses, int64."""
    places = [torch.arange(len(weight)) * (weight.shape[1] * weight.itemsize) + weight.data_ptr() for weight in weights]
    return torch.cat(places)


def _tiles(library: ctypes.CDLL) -> tuple[Tiles, Tiles]:
    """What may multiply 8 bits, and bfloat16. Asks the system for tiles, which it gives to the whole process."""
    found = library.parkway_tiles()
    for bit, name in ((1, "8 bits"), (2, "bfloat16")):
        if found & bit << 2 and not found & bit:
            log.warning(
                "the processor's tiles (AMX) do not multiply %s: the system refuses them, or they gave wrong results",
                name,
            )
    return (Tiles.REAL if found & 1 else Tiles.NONE), (Tiles.REAL if found & 2 else Tiles.NONE)


def _check(code: int) -> None:
    if code:
        raise MemoryError("no memory for the threads of a kernel")


def _threads() -> int | None:
    """The entry of the OpenMP runtime that torch has loaded; None where it has none that we know.

    A second runtime would keep threads of its own, and the two would fight over the cores.
    """
    mapped = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "libgomp" in line}
    # Other packages may have brought one along too.
    for path in sorted(mapped, key=lambda path: Path(torch.__path__[0]).name not in path):
        return ctypes.cast(ctypes.CDLL(path).GOMP_parallel, _P).value
    log.warning("torch uses no libgomp here, so the engine's kernels run on one thread")
    return None
