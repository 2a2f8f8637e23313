"""A wrong configuration names file, line and key, and the nearest key that is right."""

from pathlib import Path

import pytest

from parkway.core.configuration import Section, load, parse
from parkway.core.errors import ConfigurationError


class Limits(Section):
    rate_per_s: float = 100
    burst: int = 1000


class Model(Section):
    path: str | None = None
    url: str | None = None


class Whole(Section):
    limits: Limits = Limits()
    models: dict[str, Model] = {}
    several: list[Model] = []


def refused(text: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        parse(text, Whole, source="parkway.yaml")
    assert caught.value.exit_code == 2
    return caught.value.message


def test_absent_keys_take_their_defaults() -> None:
    assert parse("", Whole, source="x") == Whole()
    assert parse("limits:\n  burst: 5\n", Whole, source="x").limits == Limits(burst=5)


def test_an_unknown_key_names_the_nearest() -> None:
    assert refused("limits:\n  burst: 1\n  rate_per_sec: 5\n") == (
        'parkway.yaml:3: limits.rate_per_sec: unknown key. Did you mean "rate_per_s"?'
    )


def test_an_unknown_key_deep_inside() -> None:
    assert 'parkway.yaml:3: models.m.pth: unknown key. Did you mean "path"?' in refused("models:\n  m:\n    pth: x\n")
    assert 'parkway.yaml:3: several.1.ulr: unknown key. Did you mean "url"?' in refused(
        "several:\n- url: x\n- ulr: y\n"
    )


def test_an_unknown_key_like_no_other_lists_the_known() -> None:
    assert "Known keys: limits, models, several." in refused("zzz: 1\n")


def test_a_wrong_value_is_shown() -> None:
    message = refused("limits:\n  burst: many\n  rate_per_s: [1]\n")
    assert "parkway.yaml:2: limits.burst:" in message
    assert "got 'many'" in message
    assert "parkway.yaml:3: limits.rate_per_s:" in message  # all faults at once


def test_what_is_not_yaml_names_the_line() -> None:
    assert refused("limits:\n  burst: 1\n bad\n").startswith("parkway.yaml:")
    assert "expected keys and values" in refused("- 1\n- 2\n")


def test_a_key_given_twice_is_refused() -> None:
    assert refused("limits:\n  burst: 1\n  burst: 2\n") == "parkway.yaml:3: limits.burst: given twice"


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load(tmp_path / "none.yaml", Whole)


def test_no_python_objects_from_yaml() -> None:
    assert "parkway.yaml" in refused("limits: !!python/object/apply:os.system ['true']\n")
