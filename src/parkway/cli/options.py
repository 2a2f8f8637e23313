"""Options and argument types that several commands share."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

config_option = click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The configuration file.  [default: parkway.yaml here, if there is one]",
)

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")


def lifeline_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """`--lifeline FD`, which the supervisor gives to its children."""
    return click.option("--lifeline", type=int, hidden=True)(function)


_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_DURATION = re.compile(r"(\d{1,6})([smhdw])")


class Duration(click.ParamType[float]):
    """A length of time such as `90s`, `15m`, `1h` or `7d`; the value is in seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, int | float):
            return float(value)
        match = _DURATION.fullmatch(str(value).strip())
        if match is None or int(match[1]) == 0:
            self.fail(f"{value!r} is not a duration; examples: 90s, 15m, 1h, 7d", param, ctx)
        return float(int(match[1]) * _UNITS_S[match[2]])
