"""The device that an engine computes on: the processors, or one GPU."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import torch
from torch import Tensor

from parkway.core.errors import ConfigurationError, ModelFilesError
from parkway.engine import machine
from parkway.engine.shape import ModelShape

CPU = torch.device("cpu")

_DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
_ROOM_BYTES = 512 << 20  # of a GPU's memory: for what libraries keep, and for graphs
_CHOOSING_COPIES = 8  # of scores, while tokens are chosen by them
_PROMPT_COPIES = 2  # of scores, where those of a prompt are asked for
_WIDEST = 16  # times a token's hidden state, while it passes through a layer


def choose_device(name: str) -> torch.device:
    """The device called `auto`, `cpu`, `cuda` or `cuda:N`; `auto` is a GPU where there is one.

    Raises:
        ConfigurationError: there is no such GPU.
    """
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return CPU
    if not torch.cuda.is_available():
        raise ConfigurationError(f"device is {name!r}, but {_why_no_gpu()}; or set device: cpu")
    index = int(name.partition(":")[2] or 0)
    count = torch.cuda.device_count()
    if index >= count:
        raise ConfigurationError(
            f"device is {name!r}, but this process sees {count} GPU{'s' if count > 1 else ''}, "
            f"{', '.join(f'cuda:{each}' for each in range(count))}; choose one of them"
        )
    return torch.device("cuda", index)


def choose_dtype(name: str, device: torch.device = CPU) -> torch.dtype:
    """The type to compute in; `auto` is bfloat16 where the device multiplies it natively, else float32."""
    if name != "auto":
        return _DTYPES[name]
    # Without these instructions bfloat16 is emulated and several times slower than float32.
    if device.type == "cuda":
        with torch.cuda.device(device):
            native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if native else torch.float32


def upload(numbers: Sequence[int] | Sequence[float], device: torch.device) -> Tensor:
    """Numbers as a tensor on `device`: int64 or float32 [n]."""
    return moved(torch.tensor(numbers), device)


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """`tensor`, which is on the CPU, on `device`. Nobody waits until a GPU has done what it was given before."""
    if device.type == "cpu":
        return tensor
    return tensor.pin_memory().to(device, non_blocking=True)


def put(numbers: Sequence[int], place: Tensor) -> None:
    """Write int64 numbers to the beginning of `place`, likewise."""
    given = torch.tensor(numbers)
    pinned = given.pin_memory() if place.is_cuda else given
    place[: len(numbers)].copy_(pinned, non_blocking=True)


def launching_on(device: torch.device) -> AbstractContextManager[object]:
    """Within it, kernels that are not torch's own are launched on `device` too."""
    return nullcontext() if device.type == "cpu" else torch.cuda.device(device)


def free_bytes(device: torch.device) -> int:
    """Memory of a GPU that nobody uses."""
    torch.cuda.empty_cache()
    return torch.cuda.mem_get_info(device)[0]


def cache_budget_bytes(device: torch.device, shape: ModelShape, *, choices: int, tokens: int) -> int:
    """What keys and values may take where nobody says it.

    A quarter of main memory; of a GPU all that is left beside the weights, but for a reserve to compute in.

    Args:
        choices: the most tokens that a step chooses.
        tokens: the most that it reads.
    """
    if device.type == "cpu":
        return machine.memory_bytes() // 4
    scores = (_CHOOSING_COPIES * choices + _PROMPT_COPIES * tokens) * shape.vocab_size
    numbers = scores + _WIDEST * tokens * shape.hidden_size
    return max(0, free_bytes(device) - _ROOM_BYTES - numbers * torch.float32.itemsize)


@contextmanager
def within_memory(place: Path, device: torch.device) -> Iterator[None]:
    """Loading the model in `place`; ModelFilesError where the device has too little memory for it."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise ModelFilesError(f"{place}: {device} ran out of memory while the model was loaded: {error}") from error


def _why_no_gpu() -> str:
    if torch.version.cuda is None and torch.version.hip is None:
        return f"torch {torch.__version__} is built for processors only: install its CUDA build"
    return f"torch {torch.__version__} finds no GPU: see that `nvidia-smi` shows one to this user"
