"""How much memory models need, how much their engines use, and how much all of them may."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from parkway.core.errors import ModelFilesError
from parkway.engine import machine
from parkway.engine.builtin import resolve
from parkway.engine.config import EngineConfig
from parkway.engine.directory import ModelDirectory
from parkway.engine.shape import ModelShape
from parkway.launch.model_facts import count_parameters, read_facts
from parkway.store.models import readable_bytes

PROCESS_BYTES = 300_000_000
"""What an engine uses beside weights and cache: the interpreter, torch, buffers."""

_SHARE = 0.8
_BFLOAT16_FLAGS = {"avx512_bf16", "amx_tile"}


@dataclass(frozen=True, slots=True)
class Need:
    """What a model will use at most, as its files and the configuration tell before it is loaded."""

    weights_bytes: int
    cache_bytes: int

    @property
    def least_bytes(self) -> int:
        """Without what the cache may grow to."""
        return self.weights_bytes + PROCESS_BYTES

    @property
    def total_bytes(self) -> int:
        return self.least_bytes + self.cache_bytes

    def __str__(self) -> str:
        return (
            f"{readable_bytes(self.total_bytes)} (weights {readable_bytes(self.weights_bytes)}, cache up to "
            f"{readable_bytes(self.cache_bytes)}, {readable_bytes(PROCESS_BYTES)} beside)"
        )


def need_of(model: str, config: EngineConfig, adapters: Iterable[str] = ()) -> Need:
    """What the model (a directory, or the name of a built-in one) needs in an engine with `config`.

    Args:
        adapters: The directories of those that the engine holds beside it.

    Raises:
        ModelFilesError: Its files cannot be read.
    """
    path = resolve(model)
    directory = ModelDirectory(path)
    parameters = read_facts(path).parameters
    if parameters == 0:
        raise ModelFilesError(f"{path}: no safetensors weights; give a model directory in Hugging Face's layout")
    if directory.kind == "encoder":
        return Need(parameters * (2 if config.dtype == "bfloat16" else 4), 0)
    shape = ModelShape.from_config(directory.config)
    number_bytes = 2 if config.dtype == "bfloat16" or (config.dtype == "auto" and _multiplies_bfloat16()) else 4
    token_bytes = 2 * shape.layers * shape.kv_heads * shape.head_dim * number_bytes
    # As the engine has it: no more than twice what so many answers can fill.
    useful = min(shape.context, config.max_context_tokens) * config.max_sequences * 2
    allowed_bytes = config.cache_bytes or machine.memory_bytes() // 4
    weights = parameters * (1 if config.quantization == "int8" else number_bytes)
    weights += sum(count_parameters(Path(adapter)).total() for adapter in adapters) * number_bytes
    return Need(weights, min(allowed_bytes, useful * token_bytes))


def default_limit_bytes() -> int:
    """What all engines together may use where nobody says: most of what this process may."""
    return int(machine.memory_bytes() * _SHARE)


def resident_bytes(pid: int) -> int | None:
    """The resident memory of a process; None where it is gone or this system does not tell."""
    return _status(pid).get("VmRSS")


def own_bytes(pid: int) -> int | None:
    """The same without pages of files, which others get when memory is short."""
    status = _status(pid)
    return status["VmRSS"] - status.get("RssFile", 0) if "VmRSS" in status else None


def _status(pid: int) -> dict[str, int]:
    """Sizes in bytes, by their names in /proc."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    words = [line.split() for line in lines if line.endswith(" kB")]
    return {name.rstrip(":"): int(size) * 1024 for name, size, _ in words}


def _multiplies_bfloat16() -> bool:
    """Whether the processor does so natively, by which an engine with `dtype: auto` chooses."""
    try:
        flags = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags"))
    except (OSError, StopIteration):
        return False
    return not _BFLOAT16_FLAGS.isdisjoint(flags.split())
