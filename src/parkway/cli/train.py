"""`parkway train`: trains the built-in models."""

from __future__ import annotations

from pathlib import Path

import click


@click.group("train")
def command() -> None:
    """Train a built-in model.

    \b
    Example:
      parkway train park-mini --data examples.jsonl --out ./my-park-mini --minutes 117
    """


@command.command("park-mini")
@click.option(
    "--data",
    required=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="tldr examples, JSON Lines.",
)
@click.option(
    "--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="The model directory to write."
)
@click.option(
    "--minutes", type=click.FloatRange(min=0, min_open=True), default=117.0, show_default=True, help="Time to train."
)
@click.option("--seed", type=int, default=0, show_default=True, help="The same seed draws the same data.")
@click.option(
    "--wordnet",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="WordNet's database (Debian: /usr/share/wordnet), whose words widen the questions to decline.",
)
@click.option(
    "--start",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Model directory to go on from, instead of random weights.",
)
@click.option(
    "--rate",
    type=click.FloatRange(min=0, min_open=True),
    default=1.0,
    show_default=True,
    help="Scales the learning rates; less than 1 goes on gently from a trained model.",
)
@click.option(
    "--outside",
    multiple=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Questions outside the field for the examination, JSON Lines with a `text`; may be given several times.",
)
def park_mini(
    data: Path,
    out: Path,
    minutes: float,
    seed: int,
    wordnet: Path | None,
    start: Path | None,
    rate: float,
    outside: tuple[Path, ...],
) -> None:
    """Train park-mini, the command-line helper, and examine it on questions that it never saw.

    An interrupted run goes on where it was when it is started again with the same --out.

    \b
    Examples:
      parkway train park-mini --data examples.jsonl --out ./my-park-mini
      parkway train park-mini --data examples.jsonl --out ./my-park-mini --minutes 5 --seed 7
    """
    # Imported late: torch takes seconds, and neither --help nor a wrong option needs it.
    from parkway.train.mini import MiniConfig, train

    train(
        MiniConfig(
            data=data, out=out, minutes=minutes, seed=seed, wordnet=wordnet, start=start, rate=rate, outside=outside
        )
    )
