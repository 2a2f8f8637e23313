"""park-mini from its data to its directory: read, split, train until the time is up, write, examine, describe."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from parkway.train.card import Record, write_card
from parkway.train.config import MiniConfig
from parkway.train.corpus import Split, read_examples
from parkway.train.dialogue import Source
from parkway.train.exam import Sheet, examine, parts, read_outside
from parkway.train.export import export
from parkway.train.pythontools import python_tools
from parkway.train.run import Run

SAMPLES = 5  # answers of each part that the card prints as they came


def train(config: MiniConfig) -> None:
    """Train park-mini and write its directory, card included, to `config.out`.

    An interrupted run carries on where its last checkpoint lies; the checkpoint stays in `config.work`.

    Raises:
        ConfigurationError: a data file cannot be read.
    """
    split = read_split(config)
    run = Run(config, split)
    run.train()
    export(config.out, run.model, run.tokenizer, config.architecture())
    sheets = evaluate(config.out, config)
    parameters = sum(parameter.numel() for parameter in run.model.parameters())
    figures = [sheet.figures() for sheet in sheets]
    record = Record.of(config, split, run.progress, parameters, figures)
    write_card(config.out, record, [sheet.first(SAMPLES) for sheet in sheets])


def evaluate(directory: Path, config: MiniConfig) -> list[Sheet]:
    """Examine the model in `directory` on what a run of `config` held out."""
    split = read_split(config)
    outside = [text for path in config.outside for text in read_outside(path, config.questions, config.seed)]
    source = Source.of(split.trained, known=split.held_out, wordnet=config.wordnet)
    return examine(directory, parts(source, split, outside, config.seed, config.questions))


def read_split(config: MiniConfig) -> Split:
    """What is trained and what is held out; the same for every reading of one configuration."""
    examples = [*read_examples(config.data), *python_tools()]
    return Split.draw(examples, config.held_out, config.seed)


def main(arguments: Sequence[str] | None = None) -> None:
    """`python -m parkway.train.mini --data examples.jsonl --out DIR --minutes N`."""
    parser = argparse.ArgumentParser(description="Train park-mini.")
    parser.add_argument("--data", type=Path, required=True, help="JSON Lines of tldr-pages examples")
    parser.add_argument("--out", type=Path, required=True, help="model directory to write")
    parser.add_argument("--minutes", type=float, default=MiniConfig.model_fields["minutes"].default)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--wordnet", type=Path, help="directory of WordNet's database")
    parser.add_argument("--rate", type=float, default=1.0, help="scales the learning rates")
    parser.add_argument("--start", type=Path, help="model directory to go on from")
    parser.add_argument("--outside", type=Path, action="append", default=[], help="questions for the examination")
    given = parser.parse_args(arguments)
    train(MiniConfig(**vars(given)))


if __name__ == "__main__":
    main()
