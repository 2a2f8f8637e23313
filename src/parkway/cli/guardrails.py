"""`parkway guardrails`: what the configured guardrails would do with a text."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Literal

import click

from parkway.cli.listing import print_json, print_table
from parkway.cli.options import config_option, json_option
from parkway.core.errors import EndpointFailed, InvalidRequest
from parkway.launch.settings import Settings
from parkway.policy.guardrails.guard import Guard, Guarded, Rule
from parkway.policy.guardrails.guardrails import Guardrails
from parkway.policy.guardrails.topics import Topics
from parkway.policy.guardrails.window import apply


@click.group("guardrails")
def command() -> None:
    """Try the guardrails of the configuration.

    \b
    Example:
      parkway guardrails test "Write to jane@example.com"
    """


@command.command("test")
@click.argument("text")
@click.option("--on", "direction", type=click.Choice(["input", "output"]), default="input", show_default=True)
@click.option("--model", default="", help="As if the request were for this model.")
@click.option("--team", help="As if the caller were of this team.")
@config_option
@json_option
def test(
    text: str,
    direction: Literal["input", "output"],
    model: str,
    team: str | None,
    config: Path | None,
    as_json: bool,
) -> None:
    """Show what each guardrail finds in TEXT (`-` reads standard input), and what becomes of it.

    Topics are not asked: they need a model that runs.

    \b
    Examples:
      parkway guardrails test "My card is 4111 1111 1111 1111"
      parkway guardrails test - --on output --json < answer.txt
    """
    settings = Settings.find(config)
    if not settings.guardrails:
        raise InvalidRequest("the configuration has no `guardrails`; docs/guardrails.md has an example to begin with")
    text = sys.stdin.read() if text == "-" else text
    guardrails = Guardrails(settings.guardrails, embed=_nobody_embeds)
    guard = guardrails.guard(direction, model, team) or Guard([])
    result = apply(guard, text)
    rows = [row for rule in guard.rules for row in _rows(rule, text)]
    if as_json:
        print_json({"findings": [dict(zip(_COLUMNS, row, strict=True)) for row in rows], **_outcome(result)})
        return
    print_table(_COLUMNS, rows)
    blocked = result.block
    click.echo(f'\nblocked by "{blocked.rule.name}": {blocked.kind}' if blocked else f"\n{result.text}")


_COLUMNS = ("guardrail", "check", "action", "kind", "score", "count")


def _rows(rule: Rule, text: str) -> list[tuple[object, ...]]:
    """What one guardrail has to say by itself, a line for each kind."""
    if isinstance(rule.check, Topics):
        return [(rule.name, rule.check_name, rule.action, "not asked", None, None)]
    findings = rule.check.find(text)
    counts = Counter(finding.kind for finding in findings)
    scores = {finding.kind: finding.score for finding in sorted(findings, key=lambda each: each.score)}
    rows: list[tuple[object, ...]] = [
        (rule.name, rule.check_name, rule.action, kind, scores[kind], count) for kind, count in counts.items()
    ]
    return rows or [(rule.name, rule.check_name, rule.action, None, None, 0)]


def _outcome(result: Guarded) -> dict[str, object]:
    if result.block is not None:
        return {"blocked_by": result.block.rule.name, "kind": result.block.kind, "text": None}
    return {"blocked_by": None, "kind": None, "text": result.text}


async def _nobody_embeds(model: str, texts: list[str], timeout_s: float) -> list[list[float]]:  # noqa: ARG001 - Embed
    raise EndpointFailed("no model runs here")
