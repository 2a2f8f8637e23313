"""The `parkway` command: finds the subcommand, and turns every error into one line and an exit code."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence

import click

from parkway import __version__
from parkway.core.errors import ConfigurationError, ParkwayError

COMMANDS: Mapping[str, str] = {
    "up": "Start Parkway: gateway, worker and an engine for each local model.",
    "reload": "Replace the gateway processes while they serve.",
    "run": "Talk to a local model, without a Parkway that runs already.",
    "chat": "Talk to a model, once or back and forth.",
    "ps": "Show which local models are loaded, and what they use.",
    "knowledge": "Add documents to collections, search them, and see how far they are.",
    "ask": "Ask a question that the documents of a collection answer.",
    "pull": "Get a model from Hugging Face.",
    "list": "List the models on this machine.",
    "show": "Show what is known of a local model.",
    "rm": "Delete a pulled model.",
    "models": "List the models of Parkway and where each is served.",
    "stats": "Show latency, throughput, errors and scores of each model.",
    "usage": "Show what was used and what it cost.",
    "budgets": "Show how much of each budget is spent.",
    "audit": "Show, export and verify the audit log.",
    "trace": "Show what a request did, and when.",
    "cache": "Clear the response cache.",
    "key": "Create, list, show and revoke API keys.",
    "guardrails": "Try the guardrails of the configuration on a text.",
    "permissions": "Show the policies in force, and explain who may do what.",
    "train": "Train a built-in model.",
    "engine": "Serve one model directory as an OpenAI-compatible server.",
}
"""What `parkway --help` lists, in this order. Each stands in the module of its name."""

HIDDEN = frozenset({"gateway", "worker", "knowledge-owner"})
"""Parts that `parkway up` starts; nobody has to type them."""

INTERRUPTED = 130
"""Exit code after Ctrl-C: 128 and the number of the signal, as shells have it."""


class Commands(click.Group):
    """The subcommands, each imported when it is used: `--help` stays quick whatever a command needs."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - likewise
        if cmd_name not in COMMANDS and cmd_name not in HIDDEN:
            return None
        return importlib.import_module(f"parkway.cli.{cmd_name.replace('-', '_')}").command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.exceptions.NoSuchCommand as error:
            raise click.exceptions.NoSuchCommand(error.command_name, possibilities=COMMANDS, ctx=ctx) from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - likewise
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="State is kept in $PARKWAY_HOME (~/.parkway); the configuration is ./parkway.yaml, or --config.",
)
@click.version_option(__version__, prog_name="parkway")
def program() -> None:
    """Parkway: the self-hosted AI platform in one Python package.

    \b
    Examples:
      parkway up                                  start it
      parkway chat "How do I unpack a .tar.gz?"   ask the built-in model
      parkway key show                            the key for your OpenAI client
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line and exits with its code."""
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line. Returns the exit code: 0, or the one of the error that was told on standard error."""
    try:
        result = program.main(arguments, prog_name="parkway", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except ParkwayError as error:
        for line in error.message.splitlines():
            click.echo(f"error: {line}", err=True)
        return error.exit_code
    except UnicodeEncodeError as error:
        if error.encoding != "utf-8":  # of a terminal; else it is an argument that could not be decoded
            raise
        click.echo(f"error: {error.object[:200]!a} is not UTF-8", err=True)
        return ConfigurationError.exit_code
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
