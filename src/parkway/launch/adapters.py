"""The LoRA adapters that the configuration gives to models: whether they can work, and what their engines are told."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from parkway.core.configuration import Location, place_of
from parkway.core.errors import ConfigurationError, ModelFilesError
from parkway.engine.builtin import resolve
from parkway.engine.directory import ModelDirectory
from parkway.launch.settings import EndpointConfig, ModelConfig, Settings

_CONFIG = "adapter_config.json"


def adapter_options(adapters: Mapping[str, str]) -> list[str]:
    """Adapters, name -> directory, as options of `parkway engine`."""
    return [part for name, directory in adapters.items() for part in ("--adapter", f"{name}={directory}")]


def check_adapters(settings: Settings, file: Path) -> None:
    """Sees that every adapter is there, and is for a model that can have it.

    Args:
        file: What `settings` were read from.

    Raises:
        ConfigurationError: Some are not; the message names file, line and key of each.
    """
    faults = [f"{place_of(file, location)}: {fault}" for location, fault in _faults(settings)]
    if faults:
        raise ConfigurationError("\n".join(faults))


def _faults(settings: Settings) -> Iterator[tuple[Location, str]]:
    """What is wrong, and where in the file."""
    for name, model in settings.models.items():
        for location, place in _places(model):
            here = ("models", name, *location, "adapters")
            if place.adapters and (fault := _fault_of_model(place, settings)):
                yield here, fault
            for adapter, directory in place.adapters.items():
                if (taken := f"{name}:{adapter}") in settings.models:
                    yield (*here, adapter), f'"{taken}" is another model under `models`; rename one of the two'
                if fault := _fault_of_adapter(Path(directory)):
                    yield (*here, adapter), fault


def _places(model: ModelConfig) -> Iterator[tuple[Location, EndpointConfig]]:
    """Every place of a model, and its keys below the model's name."""
    if not model.endpoints:
        yield (), model
    for number, place in enumerate(model.endpoints):
        yield ("endpoints", number), place


def _fault_of_model(place: EndpointConfig, settings: Settings) -> str | None:
    """Why a model can have no adapters at all; None also where its files cannot be read, which its engine tells."""
    if settings.engine_of(place).tensor_parallel > 1:
        return "a model that is divided takes no adapters; remove them, or set `engine.tensor_parallel` to 1"
    try:
        kind = ModelDirectory(resolve(str(place.path))).kind
    except ModelFilesError:
        return None
    return f"{place.path} is a sentence encoder, which takes no adapters; remove them" if kind == "encoder" else None


def _fault_of_adapter(directory: Path) -> str | None:
    if not directory.is_dir():
        return f"{directory}: no such directory; give the one that holds {_CONFIG}"
    if not (directory / _CONFIG).is_file():
        return f"{directory}: no {_CONFIG} in it; give the directory of a LoRA adapter, as PEFT writes it"
    return None
