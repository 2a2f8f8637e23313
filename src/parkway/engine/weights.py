"""Reading weights from safetensors files, whole or sharded, and nothing by pickle."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from parkway.core.errors import ModelFilesError
from parkway.engine.device import CPU, free_bytes, within_memory
from parkway.engine.directory import ModelDirectory
from parkway.engine.model import Decoder
from parkway.engine.shape import ModelShape

M = TypeVar("M", bound=nn.Module)

_FLOATS = {"F64", "F32", "F16", "BF16"}
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


class Division(Protocol):
    """How a model is divided between processes."""

    def check(self, shape: ModelShape) -> None:
        """Raise ModelFilesError where it cannot be."""
        ...

    def part(self, shape: ModelShape) -> ModelShape:
        """The sizes of this process's part."""
        ...

    def slice(self, name: str, tensor: Tensor) -> Tensor:
        """This process's part of a whole parameter."""
        ...


def load_decoder(
    directory: ModelDirectory,
    dtype: torch.dtype,
    division: Division | None = None,
    *,
    device: torch.device = CPU,
    borrowed: bool = False,
) -> Decoder:
    """The decoder in `directory`, ready to run; with a `division`, this process's part of it, on the CPU.

    Args:
        borrowed: weights may stay in the mapped files. Whoever asks for that lays out anew what it can, and then calls
            `own`, so that a model is never in memory twice.

    Raises:
        ModelFilesError: the files are missing, damaged, pickled, or do not fit config.json, or the weights do not fit
            the GPU; the message names the file and the tensors.
    """
    shape = ModelShape.from_config(directory.config)
    # Some checkpoints carry what others leave out: a copy of the tied head, and angles that are computed anyway.
    needless = ("rotary_emb.inv_freq", "lm_head.weight") if shape.tied_embeddings else ("rotary_emb.inv_freq",)
    if division is None:
        decoder = load_module(
            directory.path, lambda: Decoder(shape), dtype, needless=needless, device=device, borrowed=borrowed
        )
        decoder.frequencies = decoder.frequencies.to(device)
        return decoder
    division.check(shape)
    part = _unfilled(lambda: Decoder(division.part(shape)))
    whole = _unfilled(lambda: Decoder(shape))
    tensors = _tensors(directory.path, whole, dtype, needless, division.slice, borrowed=borrowed)
    part.load_state_dict(tensors, assign=True)
    return part.eval().requires_grad_(False)


def load_module(
    path: Path,
    build: Callable[[], M],
    dtype: torch.dtype,
    *,
    needless: tuple[str, ...],
    device: torch.device = CPU,
    borrowed: bool = False,
) -> M:
    """Build a module and fill all its parameters from the safetensors files in `path`.

    Args:
        path: the model directory.
        build: makes the module; called where tensors take no memory.
        dtype: the type that the weights are converted to.
        needless: ends of tensor names that the files may hold and the module does not have.
        device: where the weights are to lie.
        borrowed: as `load_decoder` has it.
    """
    module = _unfilled(build)
    _check_room(path, module, dtype, device)
    with within_memory(path, device):  # somebody else may take it meanwhile
        module.load_state_dict(_tensors(path, module, dtype, needless, _whole, device, borrowed), assign=True)
    return module.eval().requires_grad_(False)


def _check_room(path: Path, module: nn.Module, dtype: torch.dtype, device: torch.device) -> None:
    if device.type == "cpu":
        return
    needed = sum(parameter.numel() for parameter in module.parameters()) * dtype.itemsize
    free = free_bytes(device)
    if needed > free:
        raise ModelFilesError(
            f"{path}: the weights take {needed} bytes in {str(dtype).removeprefix('torch.')}, but {device} has {free} "
            "bytes free; choose a smaller model or another device, such as device: cpu"
        )


def own(module: nn.Module) -> None:
    """Copy the parameters of a module that was loaded `borrowed` out of the mapped files.

    A tensor that stays mapped kills the process if somebody rewrites the file under it.
    """
    for parameter in module.parameters():
        if parameter.device.type == "cpu":
            parameter.data = parameter.data.clone()


def _unfilled(build: Callable[[], M]) -> M:
    with torch.device("meta"), _Unfilled():
        return build()


def _whole(name: str, tensor: Tensor) -> Tensor:  # noqa: ARG001 - as a division has it
    return tensor


def _tensors(
    path: Path,
    module: nn.Module,
    dtype: torch.dtype,
    needless: tuple[str, ...],
    take: Callable[[str, Tensor], Tensor],
    device: torch.device = CPU,
    borrowed: bool = False,
) -> dict[str, Tensor]:
    """What `take` makes of every parameter of `module`, from the files in `path`."""
    wanted = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    places = {name: file for name, file in _places(path).items() if not name.endswith(needless)}
    _compare_names(path, wanted, places)
    tensors: dict[str, Tensor] = {}
    for file in sorted(set(places.values())):
        found = _read(file, [name for name in wanted if places[name] == file], wanted, dtype, device, borrowed)
        tensors |= {name: take(name, tensor) for name, tensor in found.items()}
    return tensors


class _Unfilled(TorchFunctionMode):
    """Leaves new parameters as they are: filling tensors without memory makes torch import its compiler, 2 s."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", "") == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def _places(path: Path) -> dict[str, Path]:
    """Where each tensor is: tensor name -> file."""
    index, single = path / "model.safetensors.index.json", path / "model.safetensors"
    if not index.is_file():
        if not single.is_file():
            raise ModelFilesError(_why_no_weights(path))
        with _open(single) as reader:
            return dict.fromkeys(reader.keys(), single)
    weight_map = ModelDirectory(path).read_json(index.name).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise ModelFilesError(f"{index}: weight_map is missing or malformed; expected tensor name -> file name")
    for name in set(weight_map.values()):
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise ModelFilesError(f"{index}: names the file {name!r}; expected a .safetensors file beside it")
        if not (path / name).is_file():
            raise ModelFilesError(f"{index}: names the shard {name!r}, which is not in {path}")
    return {tensor: path / name for tensor, name in weight_map.items()}


def _why_no_weights(path: Path) -> str:
    pickles = sorted(file.name for pattern in _PICKLES for file in path.glob(pattern))
    if pickles:
        return (
            f"{path}: holds only pickled weights ({', '.join(pickles[:3])}); loading a pickle can run any code in it, "
            "so it is refused. Convert them to safetensors."
        )
    return f"{path}: no model.safetensors and no model.safetensors.index.json"


def _compare_names(path: Path, wanted: Mapping[str, object], found: Mapping[str, object]) -> None:
    missing, unexpected = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
    if missing or unexpected:
        parts = [f"missing {_some(missing)}"] if missing else []
        parts += [f"unexpected {_some(unexpected)}"] if unexpected else []
        raise ModelFilesError(f"{path}: the weights do not fit config.json: {'; '.join(parts)}")


def _read(
    file: Path,
    names: Iterable[str],
    shapes: Mapping[str, tuple[int, ...]],
    dtype: torch.dtype,
    device: torch.device,
    borrowed: bool,
) -> dict[str, Tensor]:
    """The tensors `names` of one file, each checked against its shape and brought from the mapped file to `device`."""
    tensors: dict[str, Tensor] = {}
    with _open(file) as reader:
        present = set(reader.keys())
        for name in names:
            if name not in present:
                raise ModelFilesError(f"{file}: the index says that {name} is in it, but it is not")
            entry = reader.get_slice(name)
            if tuple(entry.get_shape()) != shapes[name]:
                raise ModelFilesError(
                    f"{file}: {name} has the shape {list(entry.get_shape())}; config.json asks for {list(shapes[name])}"
                )
            if entry.get_dtype() not in _FLOATS:
                raise ModelFilesError(
                    f"{file}: {name} is stored as {entry.get_dtype()}; the engine loads {', '.join(sorted(_FLOATS))}"
                )
            tensors[name] = reader.get_tensor(name).to(device, dtype, copy=not borrowed)
    return tensors


def _open(file: Path):
    try:
        return safe_open(str(file), framework="pt")
    except (SafetensorError, OSError) as error:
        raise ModelFilesError(f"{file}: not a whole safetensors file: {error}") from error


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"
