"""`parkway trace`: what a request did, and when. Works while Parkway is stopped, too."""

from __future__ import annotations

import time
from pathlib import Path

import click
from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from parkway.cli.listing import print_json, print_table
from parkway.cli.options import Duration, config_option, json_option
from parkway.cli.state import open_store
from parkway.feedback.trace_list import SpanView, TraceFilter, TraceView, list_traces, read_trace

_COLUMNS = ("request", "time", "what", "model", "ms", "outcome", "trace")
_WIDEST = 10_000
_SHOWN = {
    "parkway.endpoint.id": "endpoint",
    "http.response.status_code": "status",
    "error.type": "error",
    "gen_ai.usage.input_tokens": "input_tokens",
    "gen_ai.usage.output_tokens": "output_tokens",
    "gen_ai.response.finish_reasons": "finish_reasons",
}


@click.command("trace")
@click.argument("trace_id", metavar="[ID]", required=False)
@click.option("--since", type=Duration(), default="1h", show_default=True, help="The window, up to now: 15m, 1h, 7d.")
@click.option("--errors", is_flag=True, help="Only requests that failed.")
@click.option("--min-ms", type=click.FloatRange(min=0), help="Only requests that took at least so long.")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="The newest so many.")
@config_option
@json_option
def command(
    trace_id: str | None,
    since: float,
    errors: bool,
    min_ms: float | None,
    limit: int,
    config: Path | None,
    as_json: bool,
) -> None:
    """Show the tree of one request, by its request or trace ID, or list the newest requests that left a trace.

    \b
    Examples:
      parkway trace
      parkway trace --errors --since 1d
      parkway trace req_01a1fac05927ed014d348f22fdb20347
    """
    with open_store(config) as (_, database), database.read() as connection:
        if trace_id is not None:
            found = read_trace(connection, trace_id, None)
        else:
            since_ms = time.time_ns() // 1_000_000 - int(since * 1000)
            wanted = TraceFilter(since_ms=since_ms, limit=limit, status="error" if errors else None, min_ms=min_ms)
            found = list_traces(connection, wanted)
    if as_json:
        print_json(found)
    elif isinstance(found, TraceView):
        _print_tree(found)
    elif not found.data:
        click.echo("no traces in this window; a longer one: parkway trace --since 7d", err=True)
    else:
        rows = [
            (
                each.request_id,
                time.strftime("%H:%M:%S", time.localtime(each.started_ms / 1000)),
                each.name,
                each.model or None,
                f"{each.duration_ms:.1f}",
                each.outcome,
                each.trace_id,
            )
            for each in found.data
        ]
        print_table(_COLUMNS, rows)


def _print_tree(trace: TraceView) -> None:
    """Every span under its parent, with when it began after the first, and how long it took."""
    zero = min(span.started_ms for span in trace.spans)
    tree = Tree(Text(f"trace {trace.trace_id}"))
    known = {span.span_id for span in trace.spans}
    branches: dict[str, Tree] = {}
    # Parents first: a clock may say that a child began before its parent.
    waiting = list(trace.spans)
    while waiting:
        later = [span for span in waiting if span.parent_id in known and span.parent_id not in branches]
        for span in waiting:
            if span not in later:
                parent = branches.get(span.parent_id or "", tree)
                branches[span.span_id] = parent.add(_line(span, zero))
        if len(later) == len(waiting):  # spans that name one another as parents: shown flat
            known = set()
        waiting = later
    # A line that is too long for the terminal goes on in the next: nothing is cut off, and pipes get whole lines.
    Console(highlight=False, width=_WIDEST).print(tree, crop=False, soft_wrap=True)


def _line(span: SpanView, zero: float) -> Text:
    line = Text(f"{_one_line(span.name)}  ")
    line.append(f"+{span.started_ms - zero:.1f} ms  {span.duration_ms:.1f} ms", style="bold")
    if span.status == "error":
        line.append("  error", style="red")
    told = [(label, span.attributes[name]) for name, label in _SHOWN.items() if name in span.attributes]
    told += [(event.name, f"+{event.at_ms - zero:.1f} ms") for event in span.events]
    for name, value in told:
        shown = ",".join(map(str, value)) if isinstance(value, list) else value
        line.append(f"  {name}={_one_line(str(shown))}", style="dim")
    return line


def _one_line(text: str) -> str:
    """Without what a terminal would interpret."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
