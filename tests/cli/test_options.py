"""Argument types."""

import click
import pytest

from parkway.cli.options import Duration


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("15m", 900), ("1h", 3600), ("7d", 604_800), (" 2w ", 1_209_600)]
)
def test_durations(text: str, seconds: float) -> None:
    assert Duration().convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["", "1", "h", "-1h", "1.5h", "0m", "1y", "1h30m", "9999999d"])
def test_what_is_no_duration_is_told_with_examples(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is not a duration; examples: 90s, 15m, 1h, 7d"):
        Duration().convert(text, None, None)
