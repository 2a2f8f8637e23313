"""How an engine is configured."""

import re
from collections import Counter
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from parkway.core.configuration import Section

MAX_ADAPTERS = 64
"""The most adapters that an engine holds."""

_DEVICE = re.compile(r"auto|cpu|cuda(:\d{1,3})?")
_ADAPTER_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


def check_adapter_name(name: str) -> str:
    """The name; ValueError if no adapter can be called so."""
    if not _ADAPTER_NAME.fullmatch(name):
        raise ValueError("the name of an adapter has 1 to 64 letters, digits, `.`, `_` or `-`")
    return name


def _check_device(name: str) -> str:
    if not _DEVICE.fullmatch(name):
        raise ValueError("a device is `auto`, `cpu`, `cuda`, or `cuda:0`, `cuda:1` and so on")
    return name


AdapterName = Annotated[str, AfterValidator(check_adapter_name)]


class EngineConfig(Section):
    """One engine process: what it loads, where it listens, and its limits.

    Fields:
        model: a model directory, or the name of a built-in model (`park-mini`, `park-embed`).
        name: what clients call the model; by default the name of the directory.
        adapters: LoRA adapters to load, each as `NAME=DIRECTORY`; clients call them `MODEL:NAME`.
        port: 0 takes any free port.
        device: `cpu`, `cuda` or `cuda:N`; `auto` is the first GPU where torch finds one, else `cpu`.
        dtype: the type that it computes in; `auto` is bfloat16 where the device multiplies it natively, and for
            sentence encoders float32, or what our kernels use where that makes nearly the same vectors.
        quantization: `int8` keeps matrices, and rounds what they are multiplied with, in 8 bits: half the memory, and
            answers in about half the time; `none` keeps them as `dtype` says.
        tensor_parallel: how many processes share the model, each with a part of every matrix.
        threads: for tensor work, in each of these processes; by default one a core that this process may use, and a
            single one for small models.
        max_context_tokens: prompt and answer together; the model's own limit, if that is lower.
        max_sequences: the most answers that are made at once.
        cache_bytes: for keys and values; by default a quarter of the memory that this process may use, and on a GPU
            what is left of its memory beside the weights, but for a reserve.
        step_tokens: the most tokens in one step. More reads prompts faster, fewer keep running answers smoother.
        queue_limit: the most answers that wait to be begun.
        guess_tokens: a step guesses at further tokens, from what was written before, up to so many tokens in the step;
            0 guesses never. Guessing changes how fast answers come, not what they are.
        deterministic: the same request with a seed, or temperature 0, gets the same answer to the last bit, whatever
            else is in the batch. Slower; `bench/determinism.py` prints by how much.
        cuda_graphs: on a GPU, steps that only go on with answers are recorded once and replayed: faster, for some
            hundred MB of its memory.
        max_answer_tokens: length of a chat answer for which the client sets no limit.
        request_timeout_s: a request that takes longer is given up.
        drain_s: how long running requests may go on after SIGTERM.
        max_body_bytes: a longer request body is refused.
    """

    model: str = "park-mini"
    name: str | None = None
    adapters: Annotated[tuple[str, ...], Field(max_length=MAX_ADAPTERS)] = ()
    host: str = "127.0.0.1"
    port: int = Field(default=8100, ge=0, le=65535)
    device: Annotated[str, AfterValidator(_check_device)] = "auto"
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    quantization: Literal["none", "int8"] = "none"
    tensor_parallel: int = Field(default=1, ge=1, le=64)
    threads: int | None = Field(default=None, ge=1)
    max_context_tokens: int = Field(default=8192, ge=8)
    max_sequences: int = Field(default=32, ge=1, le=512)
    cache_bytes: int | None = Field(default=None, ge=1)
    step_tokens: int = Field(default=256, ge=1)
    queue_limit: int = Field(default=256, ge=1)
    guess_tokens: int = Field(default=16, ge=0)
    deterministic: bool = False
    cuda_graphs: bool = True
    max_answer_tokens: int = Field(default=2048, ge=1)
    request_timeout_s: float = Field(default=600.0, gt=0)
    drain_s: float = Field(default=30.0, ge=0)
    max_body_bytes: int = Field(default=4 << 20, ge=1024)

    def named_adapters(self) -> list[tuple[str, Path]]:
        """The adapters as pairs of a name and a directory."""
        pairs = (each.partition("=") for each in self.adapters)
        return [(name, Path(place).expanduser()) for name, _, place in pairs]

    @model_validator(mode="after")
    def _alone(self) -> "EngineConfig":
        if self.deterministic and self.tensor_parallel > 1:
            raise ValueError("`deterministic` does not go together with `tensor_parallel` above 1")
        if self.adapters and self.tensor_parallel > 1:
            raise ValueError("a model that `tensor_parallel` divides takes no adapters")
        return self

    @field_validator("adapters")
    @classmethod
    def _are_pairs(cls, adapters: tuple[str, ...]) -> tuple[str, ...]:
        for each in adapters:
            name, _, place = each.partition("=")
            if not name or not place:
                raise ValueError(f"{each!r} is no adapter; expected NAME=DIRECTORY")
            check_adapter_name(name)
        names = Counter(each.partition("=")[0] for each in adapters)
        if twice := [name for name, count in names.items() if count > 1]:
            raise ValueError(f"two adapters are called {twice[0]!r}; each needs a name of its own")
        return adapters
