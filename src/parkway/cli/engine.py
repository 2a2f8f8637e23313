"""`parkway engine`: one model directory as an OpenAI-compatible server."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import click

from parkway.cli.options import lifeline_option
from parkway.core.configuration import parse
from parkway.engine.config import EngineConfig
from parkway.launch import lifeline as life
from parkway.launch.process_log import log_to_stderr


@click.command("engine")
@click.option("--model", required=True, help="A model directory, or a built-in model: park-mini, park-embed.")
@click.option("--name", help="What clients call the model.  [default: the name of the directory]")
@click.option(
    "--adapter", "adapters", multiple=True, metavar="NAME=DIR", help="A LoRA adapter; clients call it MODEL:NAME."
)
@click.option("--host", help="The address to listen on.  [default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), help="The port; 0 takes any free one.  [default: 8100]")
@click.option("--dtype", type=click.Choice(["auto", "bfloat16", "float32"]), help="What it computes in.")
@click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Any other setting of an engine.")
@lifeline_option
def command(lifeline: int | None, assignments: Sequence[str], **given: Any) -> None:
    """Serve one model directory as an OpenAI-compatible server, without the rest of Parkway.

    Hugging Face directories of the Llama, Qwen2 and Qwen3 families, and sentence encoders for embeddings. Prints
    `ready http://HOST:PORT` once it serves; SIGTERM finishes running requests first. What KEY may be is what the
    section `engine` of parkway.yaml takes. With $PARKWAY_ENGINE_TOKEN set, clients must send it as their API key.

    \b
    Examples:
      parkway engine --model park-mini
      parkway engine --model ./models/Qwen3-0.6B --port 9001 --dtype float32
      parkway engine --model ./models/Qwen3-0.6B --adapter legal=./adapters/legal
      parkway engine --model ./models/Qwen3-0.6B --set max_sequences=64 --set cache_bytes=8000000000
    """
    if lifeline is not None:
        life.hold(lifeline)
    config = _configure({name: value for name, value in given.items() if value is not None}, assignments)
    log_to_stderr()
    # Imported late: torch takes seconds, and a wrong option is told before that.
    from parkway.engine.server import run

    run(config)


def _configure(given: dict[str, Any], assignments: Sequence[str]) -> EngineConfig:
    """The options and the assignments as one configuration.

    Raises:
        ConfigurationError: A key is unknown or given twice, or a value is wrong.
    """
    lines = [f"{name}: {json.dumps(value)}" for name, value in given.items()]
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals or not key.isidentifier():
            raise click.BadParameter(
                f"{assignment!r} is not KEY=VALUE; an example: max_sequences=64", param_hint="--set"
            )
        lines.append(f"{key}: {json.dumps(value)}")
    return parse("\n".join(lines), EngineConfig, source="parkway engine")
