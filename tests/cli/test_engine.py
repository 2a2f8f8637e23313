"""`parkway engine`: its options, and what is refused before anything is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from parkway.cli.engine import _configure
from parkway.launch.engines import engine_options
from parkway.launch.settings import Settings
from tests.cli.conftest import Command


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--set", "max_seqences=3"], 'max_seqences: unknown key. Did you mean "max_sequences"?'),
        (["--set", "max_sequences=many"], "max_sequences: Input should be a valid integer"),
        (["--set", "model=other"], "model: given twice"),
        (["--set", "max_sequences"], "is not KEY=VALUE"),
        (["--set", "a b=1"], "is not KEY=VALUE"),
        (["--port", "-1"], "-1 is not in the range"),
        (["--dtype", "int3"], "'int3' is not one of"),
        (["--adapter", "legal"], "'legal' is no adapter; expected NAME=DIRECTORY"),
        (["--adapter", "a:b=./x"], "the name of an adapter has 1 to 64 letters, digits, `.`, `_` or `-`"),
        (["--adapter", "a=./x", "--adapter", "a=./y"], "two adapters are called 'a'; each needs a name of its own"),
        (["--adapter", "a=./x", "--set", "tensor_parallel=2"], "a model that `tensor_parallel` divides takes no"),
    ],
)
def test_wrong_options_end_with_2(parkway: Command, options: list[str], message: str) -> None:
    done = parkway("engine", "--model", "x", *options)
    assert done.code == 2
    assert message in done.err


def test_a_value_stays_what_was_typed() -> None:
    config = _configure({"model": "a: b # c", "port": 0}, ["max_sequences=4", "name=yes", "dtype=float32"])
    assert (config.model, config.port, config.max_sequences) == ("a: b # c", 0, 4)
    assert (config.name, config.dtype) == ("yes", "float32")


def test_the_section_of_the_configuration_arrives_at_the_engine(tmp_path: Path) -> None:
    path = tmp_path / "parkway.yaml"
    path.write_text("engine: {max_sequences: 4, dtype: float32, drain_s: 1.5, threads: null}")
    options = engine_options(Settings.find(path).engine)
    config = _configure({"model": "m"}, options[1::2])
    assert options[::2] == ["--set"] * 3
    assert (config.max_sequences, config.dtype, config.drain_s, config.threads) == (4, "float32", 1.5, None)
