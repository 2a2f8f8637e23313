"""What a model directory says about its model, read without torch and without loading a weight."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from parkway.core.errors import ModelFilesError
from parkway.engine.directory import ModelDirectory
from parkway.engine.shape import ModelShape

_HEADER_BYTES = 100_000_000  # the most that safetensors itself allows
_FRONT_MATTER = re.compile(r"\A---\r?\n(.*?)^---\s*$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What is known of a model.

    Attributes:
        family: `model_type` of config.json.
        answers: The paths that an engine serves with it.
        context_tokens: Prompt and answer together; of an encoder, its longest text.
        parameters: As stored: embeddings that are tied count once.
        dtype: What most of the weights are stored as, as safetensors names it.
        license: As its card names it, if it has one.
    """

    family: str
    architecture: str | None
    answers: tuple[str, ...]
    context_tokens: int
    parameters: int
    dtype: str
    chat_template: bool
    license: str | None


def read_facts(path: Path) -> ModelFacts:
    """The facts of the model in `path`.

    Raises:
        ModelFilesError: There is no model, or its files cannot be read.
    """
    directory = ModelDirectory(path)
    config = directory.config
    counts = count_parameters(path)
    template = (path / "chat_template.jinja").is_file() or bool(directory.tokenizer_config.get("chat_template"))
    if directory.kind == "encoder":
        longest = directory.read_json("sentence_bert_config.json", required=False).get("max_seq_length")
        context, answers = longest or config.get("max_position_embeddings"), ("/v1/embeddings",)
    else:
        context = ModelShape.from_config(config).context
        answers = ("/v1/chat/completions", "/v1/completions") if template else ("/v1/completions",)
    architectures = config.get("architectures")
    return ModelFacts(
        family=str(config.get("model_type")),
        architecture=str(architectures[0]) if isinstance(architectures, list) and architectures else None,
        answers=answers,
        context_tokens=context if isinstance(context, int) else 0,
        parameters=sum(counts.values()),
        dtype=counts.most_common(1)[0][0] if counts else "none",
        chat_template=template,
        license=_license(path / "README.md"),
    )


def count_parameters(path: Path) -> Counter[str]:
    """Stored numbers by their type, from the headers of the weight files in `path`.

    Raises:
        ModelFilesError: One cannot be read.
    """
    counts: Counter[str] = Counter()
    for file in sorted(path.glob("*.safetensors")):
        for name, tensor in _header(file).items():
            if name == "__metadata__":
                continue
            try:
                counts[str(tensor["dtype"])] += math.prod(tensor["shape"])
            except (KeyError, TypeError) as error:
                raise ModelFilesError(f"{file}: its header does not describe the tensor {name!r}") from error
    return counts


def _header(file: Path) -> dict[str, Any]:
    """The JSON at the beginning of a safetensors file. Source: the README of github.com/huggingface/safetensors."""
    try:
        with file.open("rb") as content:
            length = int.from_bytes(content.read(8), "little")
            header = json.loads(content.read(length)) if length <= _HEADER_BYTES else None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelFilesError(f"{file}: not a whole safetensors file: {error}") from error
    if not isinstance(header, dict):
        raise ModelFilesError(f"{file}: not a whole safetensors file: no header")
    return header


def _license(card: Path) -> str | None:
    """`license` in the head of a model card; None where there is none or it cannot be read."""
    try:
        match = _FRONT_MATTER.match(card.read_text(encoding="utf-8", errors="replace"))
        head = yaml.safe_load(match[1]) if match else None
    except (OSError, yaml.YAMLError, RecursionError):
        return None
    found = (head.get("license_name") or head.get("license")) if isinstance(head, dict) else None
    return str(found)[:100] if found else None
