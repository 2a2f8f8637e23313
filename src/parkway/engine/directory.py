"""A model's directory: the JSON files in it, and what kind of model they describe."""

import json
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from parkway.core.errors import ModelFilesError


class ModelDirectory:
    """A directory in Hugging Face's layout.

    Raises:
        ModelFilesError: there is no such directory, or no config.json in it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_dir():
            raise ModelFilesError(f"{path}: no such directory; give the directory that holds config.json")
        if not (path / "config.json").is_file():
            raise ModelFilesError(f"{path}: no config.json; give a model directory in Hugging Face's layout")

    @cached_property
    def config(self) -> dict[str, Any]:
        return self.read_json("config.json")

    @cached_property
    def generation_config(self) -> dict[str, Any]:
        """Defaults for sampling and the ends of an answer; empty where the file is absent."""
        return self.read_json("generation_config.json", required=False)

    @cached_property
    def tokenizer_config(self) -> dict[str, Any]:
        """Special tokens and the chat template; empty where the file is absent."""
        return self.read_json("tokenizer_config.json", required=False)

    @property
    def kind(self) -> Literal["generator", "encoder"]:
        """What the model is for: text, or embeddings of text."""
        return "encoder" if self.config.get("model_type") == "bert" else "generator"

    def read_json(self, name: str, *, required: bool = True) -> dict[str, Any]:
        """The object in the file `name`; empty where it is absent and not `required`."""
        path = self.path / name
        return read_json(path) if required or path.is_file() else {}


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file.

    Raises:
        ModelFilesError: it cannot be read, or holds no JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelFilesError(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(value, dict):
        raise ModelFilesError(f"{path}: holds {type(value).__name__}; expected a JSON object")
    return value
