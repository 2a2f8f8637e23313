"""`parkway stats`: how each model did in a window of time."""

from __future__ import annotations

import time
from pathlib import Path

import click

from parkway.cli.listing import print_json, print_table
from parkway.cli.options import Duration, config_option, json_option
from parkway.cli.state import open_store
from parkway.core.errors import NotFound, nearest
from parkway.feedback.stats import ModelStats, Percentiles, stats

_COLUMNS = (
    "model", "requests", "errors %", "req/s", "tokens/s",
    "first token p50", "p95", "p99 ms", "total p50", "p95", "p99 ms", "score", "scored",
)  # fmt: skip


@click.command("stats")
@click.option("--since", type=Duration(), default="1h", show_default=True, help="The window, up to now: 15m, 1h, 7d.")
@click.option("--model", help="Only this model.")
@config_option
@json_option
def command(since: float, model: str | None, config: Path | None, as_json: bool) -> None:
    """Show latency, throughput, errors and scores of each model.

    Times to the first token are those of streamed answers; both latencies are those of requests that were answered.
    Scores go from 0 to 1.

    \b
    Examples:
      parkway stats
      parkway stats --since 7d --model park-mini
      parkway stats --json
    """
    now_ms = time.time_ns() // 1_000_000
    with open_store(config) as (_, database), database.read() as connection:
        found = stats(connection, since_ms=now_ms - int(since * 1000), until_ms=now_ms + 1)
    if model is not None:
        known = [row.model for row in found]
        found = [row for row in found if row.model == model]
        if not found:
            raise NotFound(f'model "{model}" had no requests in this window.{nearest(model, known)}')
    if as_json:
        print_json(found)
    elif not found:
        click.echo("no requests in this window; a longer one: parkway stats --since 7d", err=True)
    else:
        print_table(_COLUMNS, [_row(row) for row in found])


def _row(row: ModelStats) -> tuple[object, ...]:
    return (
        row.model,
        row.requests,
        f"{row.error_rate * 100:.1f}",
        f"{row.requests_per_s:.2f}",
        f"{row.tokens_per_s:.1f}",
        *_milliseconds(row.first_token_ms),
        *_milliseconds(row.total_ms),
        None if row.mean_score is None else f"{row.mean_score:.2f}",
        row.scores,
    )


def _milliseconds(values: Percentiles | None) -> tuple[str | None, str | None, str | None]:
    if values is None:
        return (None, None, None)
    return (f"{values.p50:.0f}", f"{values.p95:.0f}", f"{values.p99:.0f}")
