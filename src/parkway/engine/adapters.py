"""LoRA adapters: small changes to a model's matrices, loaded beside it and chosen by each request.

Source: Hu et al., 2021, arXiv:2106.09685; files as PEFT writes them.
"""

import itertools
import math
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from parkway.core.errors import Conflict, InvalidRequest, ModelFilesError, ModelNotFound, nearest
from parkway.engine.config import MAX_ADAPTERS, check_adapter_name
from parkway.engine.device import CPU, upload
from parkway.engine.directory import read_json
from parkway.engine.model import Decoder

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"

_KEY = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<part>[AB])(?:\.default)?\.weight")
Linear = Callable[[Tensor, Tensor], Tensor]
"""[n, in] and [out, in] -> [n, out]."""

_PICKLED = "adapter_model.bin"


@dataclass(frozen=True, slots=True)
class Change:
    """What an adapter adds to one linear layer: `x @ down.T @ up.T`, the scale being in `up`."""

    down: Tensor  # [rank, in]
    up: Tensor  # [out, rank]


@dataclass(frozen=True, slots=True, eq=False)
class Adapter:
    """An adapter, ready to be used.

    Fields:
        key: differs from that of every other adapter that was ever loaded, for the cache of prompts.
    """

    name: str
    key: bytes
    changes: Mapping[nn.Module, Change]


class Deltas:
    """What adapters add in one step, in which each token may have another one.

    Args:
        adapters: of each token; None where it has none.
        linear: how matrices are multiplied.
        device: where they lie.
    """

    def __init__(
        self, adapters: Iterable[Adapter | None], linear: Linear = F.linear, device: torch.device = CPU
    ) -> None:
        self._linear = linear
        places: dict[Adapter, list[int]] = {}
        for place, adapter in enumerate(adapters):
            if adapter is not None:
                places.setdefault(adapter, []).append(place)
        self._places = [(adapter, upload(tokens, device)) for adapter, tokens in places.items()]

    def add(self, module: nn.Module, x: Tensor, y: Tensor) -> None:
        """Change `y`, what `module` made of `x`, in place: [tokens, in] and [tokens, out]."""
        for adapter, tokens in self._places:
            change = adapter.changes.get(module)
            if change is not None:
                y.index_add_(0, tokens, self._linear(self._linear(x[tokens], change.down), change.up))


class Adapters:
    """The adapters of one model; may be asked and changed from any thread.

    Args:
        divided: the model is shared between processes; then it can have none.
    """

    def __init__(self, decoder: Decoder, *, divided: bool = False) -> None:
        self._modules = {name: module for name, module in decoder.named_modules() if isinstance(module, nn.Linear)}
        self._modules.pop("lm_head", None)
        parameter = next(decoder.parameters())
        self._dtype, self._device = parameter.dtype, parameter.device
        self._divided = divided
        self._loaded: dict[str, Adapter] = {}
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)

    def __iter__(self) -> Iterator[str]:
        """Their names, in the order in which they were loaded."""
        return iter(list(self._loaded))

    def get(self, name: str) -> Adapter:
        """The adapter with this name; ModelNotFound where there is none."""
        adapter = self._loaded.get(name)
        if adapter is None:
            raise ModelNotFound(
                f"no adapter {name[:80]!r} is loaded.{nearest(name, list(self._loaded))}", param="model"
            )
        return adapter

    def load(self, name: str, directory: Path) -> None:
        """Read an adapter's files. Takes a while: not for the event loop.

        Raises:
            InvalidRequest: the name cannot be one.
            Conflict: it is taken, or there are too many.
            ModelFilesError: files are missing or damaged, or do not fit the model.
        """
        try:
            check_adapter_name(name)
        except ValueError as error:
            raise InvalidRequest(f"{name[:80]!r} cannot be an adapter's name: {error}") from error
        if self._divided:
            raise InvalidRequest("a model with tensor_parallel above 1 can have no adapters")
        self._check_free(name)
        changes = self._read(directory.expanduser())
        with self._lock:
            self._check_free(name)
            self._loaded[name] = Adapter(name, f"{name}/{next(self._numbers)}".encode()[:64], changes)

    def unload(self, name: str) -> None:
        """Forget an adapter; answers that use it go on to their end. ModelNotFound where there is none."""
        with self._lock:
            self.get(name)
            del self._loaded[name]

    def _check_free(self, name: str) -> None:
        if name in self._loaded:
            raise Conflict(f"an adapter {name!r} is loaded already; unload it first, or choose another name")
        if len(self._loaded) >= MAX_ADAPTERS:
            raise Conflict(f"{MAX_ADAPTERS} adapters are loaded, which is the most; unload one first")

    def _read(self, directory: Path) -> dict[nn.Module, Change]:
        config = read_json(directory / CONFIG)
        _refuse_unsupported(directory, config)
        path = directory / WEIGHTS
        if not path.is_file():
            pickled = f"; {_PICKLED} is a pickle, which could run code" if (directory / _PICKLED).is_file() else ""
            raise ModelFilesError(f"{directory}: no {WEIGHTS}{pickled}")
        try:
            tensors = load_file(path)
        except (OSError, SafetensorError) as error:
            raise ModelFilesError(f"{path}: cannot be read: {error}") from error
        parts: dict[str, dict[str, Tensor]] = {}
        for key, tensor in tensors.items():
            match = _KEY.fullmatch(key)
            if match is None or match["module"] not in self._modules:
                raise ModelFilesError(f"{path}: {key} changes no linear layer of this model; only those are supported")
            parts.setdefault(match["module"], {})[match["part"]] = tensor
        return {
            self._modules[name]: self._change(path, name, pair, _Scale(config, name)) for name, pair in parts.items()
        }

    def _change(self, path: Path, name: str, pair: Mapping[str, Tensor], scale: "_Scale") -> Change:
        module = self._modules[name]
        down, up = pair.get("A"), pair.get("B")
        if down is None or up is None:
            raise ModelFilesError(f"{path}: {name} has only one half of its change")
        wanted = (module.in_features, module.out_features)
        if down.ndim != 2 or up.ndim != 2 or (down.shape[1], up.shape[0]) != wanted or down.shape[0] != up.shape[1]:
            raise ModelFilesError(
                f"{path}: the change of {name} has the shapes {list(down.shape)} and {list(up.shape)}; the layer takes "
                f"{wanted[0]} and gives {wanted[1]} values"
            )
        factor = scale.of_rank(down.shape[0])
        try:
            return Change(down.to(self._device, self._dtype), (up.float() * factor).to(self._device, self._dtype))
        except torch.OutOfMemoryError as error:
            raise ModelFilesError(f"{path}: no memory of {self._device} is left for it; unload another one") from error


class _Scale:
    """By how much a layer's change is multiplied."""

    def __init__(self, config: Mapping[str, Any], module: str) -> None:
        alpha = config.get("lora_alpha", 8)
        for pattern, own in (config.get("alpha_pattern") or {}).items():
            if re.fullmatch(rf"(.*\.)?{re.escape(pattern)}", module):
                alpha = own
        if isinstance(alpha, bool) or not isinstance(alpha, int | float):
            raise ModelFilesError(f"{CONFIG}: lora_alpha is {alpha!r}; expected a number")
        self._alpha = float(alpha)
        self._stabilised = bool(config.get("use_rslora"))

    def of_rank(self, rank: int) -> float:
        """Source of the second: Kalajdzievski, 2023, arXiv:2312.03732."""
        return self._alpha / (math.sqrt(rank) if self._stabilised else rank)


def _refuse_unsupported(directory: Path, config: Mapping[str, Any]) -> None:
    """Nothing is guessed: an adapter that would work wrongly is refused."""
    if config.get("peft_type", "LORA") != "LORA":
        raise ModelFilesError(f"{directory / CONFIG}: peft_type is {config['peft_type']!r}; only LORA is supported")
    for key in ("use_dora", "fan_in_fan_out", "modules_to_save", "lora_bias", "trainable_token_indices"):
        if config.get(key):
            raise ModelFilesError(f"{directory / CONFIG}: {key} is {config[key]!r}, which is not supported")
    if config.get("bias", "none") != "none":
        raise ModelFilesError(f"{directory / CONFIG}: bias is {config['bias']!r}; only none is supported")
